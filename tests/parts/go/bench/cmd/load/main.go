// Command load asks an admission webhook for reviews and prints what came of it as one JSON object.
//
// With -rate it is an open loop: arrivals are drawn beforehand (Poisson, the same for one -seed), none waits for an
// answer, and a latency counts from when its review was due, so that a server that stalls is charged for all that it
// kept waiting. Without, it is a closed loop: each connection asks again as soon as it is answered.
//
// Every response is read whole and checked: status, the review's own uid, allowed, and the patch. With -pid the CPU
// time of that process, all its threads, is read at the first and the last counted review.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const uidLength = 36

type asker struct {
	connection net.Conn
	reader     *bufio.Reader
	request    []byte
	uid        []byte // within request
	next       uint64
	body       bytes.Buffer
}

type target struct {
	address string
	trusted *x509.CertPool
	path    string
	body    []byte
	patch   []byte // what the decoded patch must hold; empty where there must be none
}

type answer struct {
	Response struct {
		UID     string `json:"uid"`
		Allowed bool   `json:"allowed"`
		Patch   []byte `json:"patch"`
	} `json:"response"`
}

func connect(to target, number uint64) (*asker, error) {
	host, _, err := net.SplitHostPort(to.address)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: to.trusted, ServerName: host, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13}
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	connection, err := tls.DialWithDialer(dialer, "tcp", to.address, config)
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: client-ip-webhook.client-ip-system.svc:443\r\n"+
		"User-Agent: kube-apiserver-admission\r\nContent-Length: %d\r\nAccept: application/json, */*\r\n"+
		"Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n", to.path, len(to.body))
	request := append([]byte(head), to.body...)
	at := bytes.Index(request, []byte(`"uid":"`))
	if at < 0 || len(request) < at+7+uidLength || request[at+7+uidLength] != '"' {
		return nil, errors.New("the body has no uid of 36 characters")
	}
	uid := request[at+7 : at+7+uidLength]
	return &asker{connection, bufio.NewReaderSize(connection, 16<<10), request, uid, number << 32, bytes.Buffer{}}, nil
}

func (a *asker) ask(want []byte) error {
	a.next++
	copy(a.uid, fmt.Sprintf("%08x-%04x-4000-8000-%012x", a.next>>32, a.next>>16&0xffff, a.next&0xffff))
	if err := a.connection.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := a.connection.Write(a.request); err != nil {
		return err
	}
	response, err := http.ReadResponse(a.reader, nil)
	if err != nil {
		return err
	}
	a.body.Reset()
	if _, err := io.Copy(&a.body, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s", response.StatusCode, a.body.Bytes())
	}
	var given answer
	if err := json.Unmarshal(a.body.Bytes(), &given); err != nil {
		return fmt.Errorf("%w: %s", err, a.body.Bytes())
	}
	switch r := given.Response; {
	case r.UID != string(a.uid):
		return fmt.Errorf("uid %q, asked %q", r.UID, a.uid)
	case !r.Allowed:
		return fmt.Errorf("not allowed: %s", a.body.Bytes())
	case len(want) == 0 && len(r.Patch) != 0:
		return fmt.Errorf("patched: %s", r.Patch)
	case !bytes.Contains(r.Patch, want):
		return fmt.Errorf("patch %q without %q", r.Patch, want)
	}
	return nil
}

// cpu returns the CPU time of a process, all threads: the kernel's clock of the process, see clock_getcpuclockid(3).
func cpu(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	var spent unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &spent); err != nil {
		log.Fatalf("CPU time of process %d: %v", pid, err)
	}
	return time.Duration(spent.Nano())
}

type result struct {
	Reviews        int                `json:"reviews"`
	Errors         int                `json:"errors"`
	FirstError     string             `json:"first_error,omitempty"`
	Seconds        float64            `json:"seconds"`
	PerSecond      float64            `json:"per_second"`
	CPUPerReview   float64            `json:"cpu_seconds_per_review"`
	CPUShare       float64            `json:"cpu_share"`
	LatencySeconds map[string]float64 `json:"latency_seconds"`
	LateSeconds    map[string]float64 `json:"late_seconds,omitempty"`
}

func quantiles(durations []time.Duration) map[string]float64 {
	slices.Sort(durations)
	found := map[string]float64{}
	if len(durations) == 0 {
		return found
	}
	for name, share := range map[string]float64{"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1} {
		at := min(int(share*float64(len(durations))), len(durations)-1)
		found[name] = durations[at].Seconds()
	}
	return found
}

type tally struct {
	sync.Mutex
	latencies []time.Duration
	errors    int
	first     string
}

func (t *tally) add(latencies []time.Duration, failed []error) {
	t.Lock()
	defer t.Unlock()
	t.latencies = append(t.latencies, latencies...)
	t.errors += len(failed)
	if t.first == "" && len(failed) > 0 {
		t.first = failed[0].Error()
	}
}

func closed(askers []*asker, want []byte, length time.Duration) *tally {
	var all tally
	var waiting sync.WaitGroup
	end := time.Now().Add(length)
	for _, each := range askers {
		waiting.Go(func() {
			var latencies []time.Duration
			var failed []error
			for now := time.Now(); now.Before(end) && len(failed) == 0; {
				err := each.ask(want)
				after := time.Now()
				if err != nil {
					failed = append(failed, err)
				} else {
					latencies = append(latencies, after.Sub(now))
				}
				now = after
			}
			all.add(latencies, failed)
		})
	}
	waiting.Wait()
	return &all
}

// open returns the tally, and how late each review was handed to a connection by the generator itself.
func open(askers []*asker, want []byte, length time.Duration, rate float64, seed uint64) (*tally, []time.Duration) {
	random := rand.New(rand.NewPCG(seed, 1))
	var due []time.Duration
	for at := 0.0; ; {
		at += random.ExpFloat64() / rate
		if at >= length.Seconds() {
			break
		}
		due = append(due, time.Duration(at*float64(time.Second)))
	}
	arrivals := make(chan time.Time, len(due))
	var all tally
	var waiting sync.WaitGroup
	for _, each := range askers {
		waiting.Go(func() {
			var latencies []time.Duration
			var failed []error
			for at := range arrivals {
				if err := each.ask(want); err != nil {
					failed = append(failed, err)
					break
				}
				latencies = append(latencies, time.Since(at))
			}
			all.add(latencies, failed)
		})
	}
	late := make([]time.Duration, 0, len(due))
	// A thread of its own that sleeps in the kernel: Go's own timers wake up to a millisecond late.
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	start := time.Now()
	for _, at := range due {
		for {
			left := at - time.Since(start)
			if left <= 0 {
				break
			}
			wait := unix.NsecToTimespec(left.Nanoseconds())
			_ = unix.Nanosleep(&wait, nil)
		}
		arrivals <- start.Add(at)
		late = append(late, time.Since(start)-at)
	}
	runtime.UnlockOSThread()
	close(arrivals)
	waiting.Wait()
	return &all, late
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("load: ")
	address := flag.String("address", "", "host:port of the webhook")
	path := flag.String("path", "/mutate?timeout=10s", "path and query")
	ca := flag.String("ca", "", "PEM file of the trusted authority")
	bodyFile := flag.String("body", "", "file of the AdmissionReview")
	patch := flag.String("patch", "", "what each decoded patch must hold; empty: there must be none")
	connections := flag.Int("connections", 8, "connections")
	length := flag.Duration("duration", time.Second, "how long to count")
	warmUp := flag.Duration("warm-up", 200*time.Millisecond, "how long to ask before counting")
	rate := flag.Float64("rate", 0, "reviews a second; 0: a closed loop")
	seed := flag.Uint64("seed", 1, "of the arrivals")
	pid := flag.Int("pid", 0, "the server's process, for its CPU time")
	flag.Parse()
	runtime.GOMAXPROCS(4) // so that a thread asleep in the kernel never holds up the others

	pem, err := os.ReadFile(*ca)
	if err != nil {
		log.Fatal(err)
	}
	body, err := os.ReadFile(*bodyFile)
	if err != nil {
		log.Fatal(err)
	}
	to := target{*address, x509.NewCertPool(), *path, body, []byte(*patch)}
	if !to.trusted.AppendCertsFromPEM(pem) {
		log.Fatal("no certificate in ", *ca)
	}
	askers := make([]*asker, *connections)
	var unconnected atomic.Pointer[error]
	var connecting sync.WaitGroup
	for number := range askers {
		connecting.Go(func() {
			made, err := connect(to, uint64(number))
			if err != nil {
				unconnected.Store(&err)
				return
			}
			askers[number] = made
		})
	}
	connecting.Wait()
	if failed := unconnected.Load(); failed != nil {
		log.Fatal(*failed)
	}
	if warm := closed(askers, to.patch, *warmUp); warm.errors > 0 {
		log.Fatal(warm.first)
	}
	runtime.GC()
	before, started := cpu(*pid), time.Now()
	var all *tally
	var late []time.Duration
	if *rate > 0 {
		all, late = open(askers, to.patch, *length, *rate, *seed)
	} else {
		all = closed(askers, to.patch, *length)
	}
	elapsed, spent := time.Since(started), cpu(*pid)-before
	counted := len(all.latencies)
	made := result{
		Reviews:        counted,
		Errors:         all.errors,
		FirstError:     all.first,
		Seconds:        elapsed.Seconds(),
		PerSecond:      float64(counted) / elapsed.Seconds(),
		CPUPerReview:   spent.Seconds() / float64(max(counted, 1)),
		CPUShare:       spent.Seconds() / elapsed.Seconds(),
		LatencySeconds: quantiles(all.latencies),
	}
	if late != nil {
		made.LateSeconds = quantiles(late)
	}
	if err := json.NewEncoder(os.Stdout).Encode(made); err != nil {
		log.Fatal(err)
	}
}
