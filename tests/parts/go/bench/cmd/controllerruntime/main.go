// Command controllerruntime is the mutating webhook that kubebuilder's users write, on controller-runtime's own server.
//
// -handler=raw decodes the Pod, changes it and lets PatchResponseFromRaw find the difference; -handler=defaulter is
// WithDefaulter, which is what `kubebuilder create webhook --defaulting` scaffolds.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const (
	injected = "sidecar.istio.io/status"
	mode     = "sidecar.istio.io/interceptionMode"
	method   = "client-ip.dev/method"
)

// mutate does what is done for a pod that may have TPROXY, without asking whether it may.
func mutate(pod *corev1.Pod) {
	if pod.Annotations[injected] != "" || pod.Annotations[mode] != "" {
		return
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Annotations[mode] = "TPROXY"
	pod.Labels[method] = "tproxy"
}

type raw struct{ decoder admission.Decoder }

func (h raw) Handle(_ context.Context, request admission.Request) admission.Response {
	pod := &corev1.Pod{}
	if err := h.decoder.Decode(request, pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	mutate(pod)
	changed, err := json.Marshal(pod)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changed)
}

type defaulter struct{}

func (defaulter) Default(_ context.Context, pod *corev1.Pod) error {
	mutate(pod)
	return nil
}

func main() {
	port := flag.Int("port", 0, "where to listen, on 127.0.0.1")
	folder := flag.String("cert-dir", "", "folder of tls.crt and tls.key")
	handler := flag.String("handler", "raw", "raw or defaulter")
	flag.Parse()
	ctrllog.SetLogger(logr.Discard())
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		log.Fatal(err)
	}
	hook := &webhook.Admission{Handler: raw{admission.NewDecoder(scheme)}}
	if *handler == "defaulter" {
		hook = admission.WithDefaulter[*corev1.Pod](scheme, defaulter{})
	}
	server := webhook.NewServer(webhook.Options{
		Host:    "127.0.0.1",
		Port:    *port,
		CertDir: *folder,
		// As kubebuilder scaffolds it, and as the other servers here speak.
		TLSOpts: []func(*tls.Config){func(config *tls.Config) { config.NextProtos = []string{"http/1.1"} }},
	})
	server.Register("/mutate", hook)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := server.Start(ctx); err != nil {
		log.Fatal(err)
	}
}
