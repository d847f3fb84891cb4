// Command filters answers which nodes kube-scheduler itself would let a pod land on.
//
// It reads one JSON object a line, {"nodes": [Node, ...], "pods": [Pod, ...]}, and writes one a line:
//
//	{"pods": [{"feasible": [name, ...], "tolerated": [name, ...], "invalid": [message, ...]}, ...]}
//
// feasible passed NodeName, NodeUnschedulable, NodeAffinity and TaintToleration, each with its PreFilter; tolerated
// passed NodeUnschedulable and TaintToleration alone; invalid is why the API server would refuse the pod's node
// constraints. Plugins and framework are the scheduler's own, nothing here decides.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	fwk "k8s.io/kube-scheduler/framework"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	kjson "sigs.k8s.io/json"
)

type question struct {
	Nodes []*v1.Node `json:"nodes"`
	Pods  []*v1.Pod  `json:"pods"`
}

type verdict struct {
	Feasible  []string `json:"feasible"`
	Tolerated []string `json:"tolerated"`
	Invalid   []string `json:"invalid"`
}

type answer struct {
	Pods []verdict `json:"pods"`
}

// The order in which kube-scheduler's default profile runs them.
var (
	allFilters = []string{names.NodeUnschedulable, names.NodeName, names.TaintToleration, names.NodeAffinity}
	tolerating = []string{names.NodeUnschedulable, names.TaintToleration}
)

func main() {
	comparison := flag.Bool("comparison-operators", true, "let tolerations use Gt and Lt (alpha in 1.37)")
	flag.Parse()
	gates := map[string]bool{string(features.TaintTolerationComparisonOperators): *comparison}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(gates); err != nil {
		log.Fatal(err)
	}
	metrics.Register()
	if err := serve(context.Background(), os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, input io.Reader, output io.Writer) error {
	scheduler, err := newOracle(ctx)
	if err != nil {
		return err
	}
	reader := bufio.NewReaderSize(input, 1<<20)
	writer := bufio.NewWriter(output)
	encoder := json.NewEncoder(writer)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		var asked question
		if err := kjson.UnmarshalCaseSensitivePreserveInts(line, &asked); err != nil {
			return err
		}
		answered, err := scheduler.decide(ctx, asked)
		if err != nil {
			return err
		}
		if err := encoder.Encode(answered); err != nil {
			return err
		}
		if err := writer.Flush(); err != nil {
			return err
		}
	}
}

// oracle holds two scheduler profiles, which see the cluster that was asked about last.
type oracle struct {
	cluster        *cluster
	all, tolerated framework.Framework
}

// cluster is what the framework looks nodes up in, exchanged for each question: a framework has goroutines of its own
// and is not made for one.
type cluster struct {
	fwk.SharedLister
}

func newOracle(ctx context.Context) (*oracle, error) {
	made := &oracle{cluster: &cluster{SharedLister: cache.NewEmptySnapshot()}}
	var err error
	if made.all, err = profile(ctx, made.cluster, allFilters); err != nil {
		return nil, err
	}
	if made.tolerated, err = profile(ctx, made.cluster, tolerating); err != nil {
		return nil, err
	}
	return made, nil
}

func (o *oracle) decide(ctx context.Context, asked question) (answer, error) {
	o.cluster.SharedLister = cache.NewSnapshot(nil, asked.Nodes)
	answered := answer{Pods: make([]verdict, 0, len(asked.Pods))}
	for _, pod := range asked.Pods {
		feasible, err := passing(ctx, o.all, pod)
		if err != nil {
			return answer{}, err
		}
		tolerated, err := passing(ctx, o.tolerated, pod)
		if err != nil {
			return answer{}, err
		}
		refused, err := invalid(pod)
		if err != nil {
			return answer{}, err
		}
		answered.Pods = append(answered.Pods, verdict{Feasible: feasible, Tolerated: tolerated, Invalid: refused})
	}
	return answered, nil
}

// profile is a scheduler profile with the named filters out of the scheduler's own registry.
func profile(ctx context.Context, nodes fwk.SharedLister, filters []string) (framework.Framework, error) {
	enabled := config.PluginSet{}
	for _, name := range filters {
		enabled.Enabled = append(enabled.Enabled, config.Plugin{Name: name})
	}
	return runtime.NewFramework(ctx, plugins.NewInTreeRegistry(), &config.KubeSchedulerProfile{
		SchedulerName: v1.DefaultSchedulerName,
		Plugins: &config.Plugins{
			QueueSort: config.PluginSet{Enabled: []config.Plugin{{Name: names.PrioritySort}}},
			Bind:      config.PluginSet{Enabled: []config.Plugin{{Name: names.DefaultBinder}}},
			PreFilter: enabled,
			Filter:    enabled,
		},
		PluginConfig: []config.PluginConfig{{Name: names.NodeAffinity, Args: &config.NodeAffinityArgs{}}},
	}, runtime.WithSnapshotSharedLister(nodes))
}

// passing runs PreFilter and Filter as the scheduler does before it scores.
func passing(ctx context.Context, profile framework.Framework, pod *v1.Pod) ([]string, error) {
	state := framework.NewCycleState()
	chosen, status, _ := profile.RunPreFilterPlugins(ctx, state, pod)
	if status.IsRejected() {
		return []string{}, nil
	}
	if !status.IsSuccess() {
		return nil, status.AsError()
	}
	nodes, err := profile.SnapshotSharedLister().NodeInfos().List()
	if err != nil {
		return nil, err
	}
	found := []string{}
	for _, node := range nodes {
		name := node.Node().Name
		if !chosen.AllNodes() && !chosen.NodeNames.Has(name) {
			continue
		}
		switch status := profile.RunFilterPlugins(ctx, state, pod, node); status.Code() {
		case fwk.Success:
			found = append(found, name)
		case fwk.Unschedulable, fwk.UnschedulableAndUnresolvable:
		default:
			return nil, fmt.Errorf("pod %s, node %s: %w", pod.Name, name, status.AsError())
		}
	}
	slices.Sort(found)
	return found, nil
}

// invalid is what the API server's validation says of the fields that choose nodes.
func invalid(pod *v1.Pod) ([]string, error) {
	defaulted := pod.DeepCopy()
	corev1.SetObjectDefaults_Pod(defaulted)
	var internal core.Pod
	if err := corev1.Convert_v1_Pod_To_core_Pod(defaulted, &internal, nil); err != nil {
		return nil, err
	}
	options := podutil.GetValidationOptionsFromPodSpecAndMeta(&internal.Spec, nil, &internal.ObjectMeta, nil)
	messages := []string{}
	for _, each := range validation.ValidatePodCreate(&internal, options) {
		if choosesNodes(each) {
			messages = append(messages, each.Error())
		}
	}
	return messages, nil
}

func choosesNodes(refusal *field.Error) bool {
	for _, prefix := range []string{"spec.nodeName", "spec.nodeSelector", "spec.affinity.nodeAffinity", "spec.tolerations"} {
		if strings.HasPrefix(refusal.Field, prefix) {
			return true
		}
	}
	return false
}
