// Command plain is a webhook tuned by hand: net/http, a decode of the few fields it reads, a patch made beforehand.
//
// Nobody ships it; it is about the least that a Go webhook of this kind costs.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
)

type review struct {
	Request struct {
		UID    string `json:"uid"`
		Object struct {
			Metadata struct {
				Annotations map[string]string `json:"annotations"`
				Labels      map[string]string `json:"labels"`
			} `json:"metadata"`
			Spec struct {
				NodeSelector map[string]string `json:"nodeSelector"`
				HostNetwork  bool              `json:"hostNetwork"`
			} `json:"spec"`
		} `json:"object"`
	} `json:"request"`
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

type response struct {
	UID       string `json:"uid"`
	Allowed   bool   `json:"allowed"`
	PatchType string `json:"patchType,omitempty"`
	Patch     []byte `json:"patch,omitempty"`
}

type answer struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Response   response `json:"response"`
}

var (
	buffers = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}
	patches [2][2][]byte
)

// patchOf returns the patch by whether the object has annotations and labels.
func patchOf(annotations, labels bool) []byte {
	operations := []operation{}
	if !annotations {
		operations = append(operations, operation{"add", "/metadata/annotations", map[string]string{}})
	}
	operations = append(operations, operation{"add", "/metadata/annotations/sidecar.istio.io~1interceptionMode", "TPROXY"})
	if !labels {
		operations = append(operations, operation{"add", "/metadata/labels", map[string]string{}})
	}
	operations = append(operations, operation{"add", "/metadata/labels/client-ip.dev~1method", "tproxy"})
	encoded, err := json.Marshal(operations)
	if err != nil {
		panic(err)
	}
	return encoded
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

func mutate(writer http.ResponseWriter, request *http.Request) {
	held := buffers.Get().(*[]byte)
	defer buffers.Put(held)
	size := int(request.ContentLength)
	if size <= 0 || size > 7<<20 {
		http.Error(writer, "send a Content-Length", http.StatusLengthRequired)
		return
	}
	if cap(*held) < size {
		*held = make([]byte, size)
	}
	body := (*held)[:size]
	if _, err := io.ReadFull(request.Body, body); err != nil {
		return
	}
	var asked review
	if err := json.Unmarshal(body, &asked); err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	metadata := asked.Request.Object.Metadata
	given := answer{"admission.k8s.io/v1", "AdmissionReview", response{UID: asked.Request.UID, Allowed: true}}
	if metadata.Annotations["sidecar.istio.io/status"] == "" && !asked.Request.Object.Spec.HostNetwork {
		given.Response.PatchType = "JSONPatch"
		given.Response.Patch = patches[index(metadata.Annotations != nil)][index(metadata.Labels != nil)]
	}
	encoded, err := json.Marshal(given)
	if err != nil {
		http.Error(writer, err.Error(), http.StatusInternalServerError)
		return
	}
	writer.Header()["Content-Type"] = []string{"application/json"}
	_, _ = writer.Write(encoded)
}

func main() {
	port := flag.Int("port", 0, "where to listen, on 127.0.0.1")
	folder := flag.String("cert-dir", "", "folder of tls.crt and tls.key")
	flag.Parse()
	for annotations := range patches {
		for labels := range patches[annotations] {
			patches[annotations][labels] = patchOf(annotations == 1, labels == 1)
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; os.Exit(0) }()
	server := http.Server{
		Addr:         fmt.Sprintf("127.0.0.1:%d", *port),
		Handler:      http.HandlerFunc(mutate),
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	log.Fatal(server.ListenAndServeTLS(filepath.Join(*folder, "tls.crt"), filepath.Join(*folder, "tls.key")))
}
