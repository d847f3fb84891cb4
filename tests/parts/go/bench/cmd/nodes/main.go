// Command nodes fills a cluster with nodes, or keeps changing those it has.
//
// Nodes are read from standard input, one JSON object a line. Without -rate each is created; with it each gets a new
// value of the label `bench/turn`, -rate of them a second, over and over for -duration.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			Server string `json:"server"`
			CA     []byte `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User struct {
			Token string `json:"token"`
		} `json:"user"`
	} `json:"users"`
}

type api struct {
	client *http.Client
	server string
	token  string
}

func connect(path string) (*api, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var config kubeconfig
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(config.Clusters[0].Cluster.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	return &api{client, config.Clusters[0].Cluster.Server, config.Users[0].User.Token}, nil
}

func (a *api) send(method, path, kind string, body []byte) error {
	request, err := http.NewRequest(method, a.server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", kind)
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 && response.StatusCode != http.StatusConflict {
		return fmt.Errorf("%s %s: %d %s", method, path, response.StatusCode, text)
	}
	return nil
}

func name(node []byte) (string, error) {
	var named struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	err := json.Unmarshal(node, &named)
	return named.Metadata.Name, err
}

func create(to *api, nodes [][]byte) error {
	work := make(chan []byte)
	var waiting sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 16 {
		waiting.Go(func() {
			for node := range work {
				if err := to.send(http.MethodPost, "/api/v1/nodes", "application/json", node); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	for _, node := range nodes {
		work <- node
		if failed.Load() != nil {
			break
		}
	}
	close(work)
	waiting.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func churn(to *api, nodes [][]byte, rate float64, length time.Duration) (int, error) {
	start, turn := time.Now(), 0
	for ; time.Since(start) < length; turn++ {
		time.Sleep(time.Duration(float64(turn)/rate*float64(time.Second)) - time.Since(start))
		named, err := name(nodes[turn%len(nodes)])
		if err != nil {
			return turn, err
		}
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"bench/turn":"%d"}}}`, turn)
		if err := to.send(http.MethodPatch, "/api/v1/nodes/"+named, "application/merge-patch+json", patch); err != nil {
			return turn, err
		}
	}
	return turn, nil
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("nodes: ")
	config := flag.String("kubeconfig", "", "the cluster's kubeconfig, as JSON")
	rate := flag.Float64("rate", 0, "changes a second; 0: create")
	length := flag.Duration("duration", time.Second, "how long to change")
	flag.Parse()
	to, err := connect(*config)
	if err != nil {
		log.Fatal(err)
	}
	var nodes [][]byte
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		nodes = append(nodes, bytes.Clone(lines.Bytes()))
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
	done, started := len(nodes), time.Now()
	if *rate > 0 {
		done, err = churn(to, nodes, *rate, *length)
	} else {
		err = create(to, nodes)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("{\"nodes\":%d,\"seconds\":%f}\n", done, time.Since(started).Seconds())
}
