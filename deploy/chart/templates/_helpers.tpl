{{- /* The names are fixed: the configuration's must sort before Istio's, and the certificate is for the Service's. */ -}}
{{- define "webhook.name" -}}client-ip-webhook{{- end -}}

{{- define "webhook.selector" -}}
app.kubernetes.io/name: {{ include "webhook.name" . }}
{{- end -}}

{{- define "webhook.labels" -}}
{{ include "webhook.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "webhook.secret" -}}
{{- if eq .Values.certificates.mode "manual" -}}{{ .Values.certificates.manual.secretName }}{{- else -}}client-ip-webhook-tls{{- end -}}
{{- end -}}
