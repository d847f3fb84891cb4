{{- /* The names are fixed: the configuration must sort before Istio's, and the certificate is issued for the Service's name. */ -}}
{{- define "webhook.name" -}}client-ip-webhook{{- end -}}

{{- define "webhook.selector" -}}
app.kubernetes.io/name: {{ include "webhook.name" . }}
{{- end -}}

{{- /* A LabelSelector as CEL, as in webhook/cli/cel.py; a test ensures that both are equal. */ -}}
{{- define "webhook.celSelector" -}}
{{- $labels := printf "variables.%s" .labels -}}
{{- $terms := list -}}
{{- range $key, $value := .selector.matchLabels -}}
{{- $terms = append $terms (printf "(%s in %s && %s[%s] in %s)" (toJson $key) $labels $labels (toJson $key) (list $value | toJson)) -}}
{{- end -}}
{{- range .selector.matchExpressions -}}
{{- $there := printf "%s in %s" (toJson .key) $labels -}}
{{- if .values -}}
{{- $there = printf "(%s && %s[%s] in %s)" $there $labels (toJson .key) (sortAlpha .values | toJson) -}}
{{- end -}}
{{- $not := has .operator (list "NotIn" "DoesNotExist") -}}
{{- $terms = append $terms (printf "%s(%s)" (ternary "!" "" $not) $there) -}}
{{- end -}}
{{- join " && " $terms | default "true" -}}
{{- end -}}

{{- /* The expression that is true for the Service of an ingress gateway. */ -}}
{{- define "webhook.gateways" -}}
{{- $any := list -}}
{{- range .Values.finalState.gateways -}}
{{- $selectors := list -}}
{{- range .selectors -}}
{{- $selectors = append $selectors (include "webhook.celSelector" (dict "selector" . "labels" "labels")) -}}
{{- end -}}
{{- $of := join " || " $selectors -}}
{{- if .namespaceSelector -}}
{{- $of = printf "%s && (%s)" (include "webhook.celSelector" (dict "selector" .namespaceSelector "labels" "around")) $of -}}
{{- end -}}
{{- $any = append $any $of -}}
{{- end -}}
{{- uniq $any | join " || " | default "false" -}}
{{- end -}}

{{- define "webhook.labels" -}}
{{ include "webhook.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* The scan needs a name of its own: the webhook's Services and PodDisruptionBudget select by name. */ -}}
{{- define "webhook.scan.labels" -}}
app.kubernetes.io/name: client-ip-scan
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "webhook.secret" -}}
{{- if eq .Values.certificates.mode "manual" -}}{{ .Values.certificates.manual.secretName }}{{- else -}}client-ip-webhook-tls{{- end -}}
{{- end -}}

{{- /* Checks of several values together, which values.schema.json cannot express. */ -}}
{{- define "webhook.check" -}}
{{- $secret := .Values.certificates.secret -}}
{{- if lt (int $secret.caLifeDays) (mul 3 (int $secret.leafLifeDays) | int) -}}
{{- fail (printf "certificates.secret.caLifeDays: must be at least 3 times certificates.secret.leafLifeDays (%d), not %d" (mul 3 (int $secret.leafLifeDays)) (int $secret.caLifeDays)) -}}
{{- end -}}
{{- if and .Values.webhook.clientCA.names (not .Values.webhook.clientCA.certificates) -}}
{{- fail "webhook.clientCA.names: requires webhook.clientCA.certificates" -}}
{{- end -}}
{{- if eq (int .Values.webhook.port) (int .Values.probePort) -}}
{{- fail (printf "probePort: must differ from webhook.port (%d)" (int .Values.webhook.port)) -}}
{{- end -}}
{{- if and .Values.hostNetwork (has 10250 (list (int .Values.webhook.port) (int .Values.probePort))) -}}
{{- fail "webhook.port: 10250 is used by the kubelet on every node, and cannot be combined with hostNetwork" -}}
{{- end -}}
{{- range .Values.envoyFilter.gateways -}}
{{- if and (contains "*" (first (splitList "/" .))) (not $.Values.envoyFilter.anyNamespace) -}}
{{- fail (printf "envoyFilter.gateways: %q would trust a ServiceAccount in any namespace: name the namespace, or set envoyFilter.anyNamespace" .) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.istio.namespace .Release.Namespace -}}
{{- fail (printf "istio.namespace: must not be the release's namespace (%s), in which the webhook never changes objects" .Release.Namespace) -}}
{{- end -}}
{{- end -}}
