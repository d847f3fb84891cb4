// Command yamls answers how kubectl reads a stream of manifests.
//
// It reads one JSON string a line, the stream in base64, and writes one object a line:
//
//	{"documents": [any, ...], "error": "..."}
//
// documents are those before the error, error is empty where there is none. Byte order marks, the splitting into
// documents and YAML are read by what kubectl itself uses (k8s.io/cli-runtime/pkg/resource, FileVisitor and
// StreamVisitor); nothing here decides.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

type answer struct {
	Documents []json.RawMessage `json:"documents"`
	Error     string            `json:"error"`
}

func read(stream []byte) answer {
	found := answer{Documents: []json.RawMessage{}}
	marks := unicode.BOMOverride(unicode.UTF8.NewDecoder())
	decoder := yaml.NewYAMLOrJSONDecoder(transform.NewReader(bytes.NewReader(stream), marks), 4096)
	for {
		document := runtime.RawExtension{}
		if err := decoder.Decode(&document); err != nil {
			if !errors.Is(err, io.EOF) {
				found.Error = err.Error()
			}
			return found
		}
		document.Raw = bytes.TrimSpace(document.Raw)
		if len(document.Raw) == 0 || bytes.Equal(document.Raw, []byte("null")) {
			continue
		}
		found.Documents = append(found.Documents, json.RawMessage(document.Raw))
	}
}

func main() {
	questions := json.NewDecoder(bufio.NewReader(os.Stdin))
	answers := json.NewEncoder(os.Stdout)
	answers.SetEscapeHTML(false)
	for {
		var stream []byte // base64, as encoding/json has it
		if err := questions.Decode(&stream); err != nil {
			if errors.Is(err, io.EOF) {
				return
			}
			log.Fatal(err)
		}
		if err := answers.Encode(read(stream)); err != nil {
			log.Fatal(err)
		}
	}
}
