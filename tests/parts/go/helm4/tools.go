//go:build tools

// Package tools pins the programs that the tests build from this module.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
