// Command render prints the manifests of the Istio charts that the istio.io/istio module embeds.
//
// It calls what "istioctl manifest generate" calls, so that a test need not build istioctl:
//
//	render FILE.yaml [PATH=VALUE ...]
//
// FILE.yaml is an IstioOperator document; PATH=VALUE is istioctl's --set.
package main

import (
	"fmt"
	"os"

	"istio.io/istio/operator/pkg/render"
	"istio.io/istio/operator/pkg/util/clog"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: render FILE.yaml [PATH=VALUE ...]")
		os.Exit(2)
	}
	components, _, err := render.GenerateManifest(os.Args[1:2], os.Args[2:], false, nil, clog.NewDefaultLogger())
	if err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
	for _, component := range components {
		for _, manifest := range component.Manifests {
			fmt.Printf("---\n%s\n", manifest.Content)
		}
	}
}
