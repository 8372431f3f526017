// Writes golden.jsonl: what upstream's own code says about quantities, pods' resources, node
// selection and tolerations, for random input. See README.md beside it.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	helpers "k8s.io/component-helpers/resource"
	corev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

var r = rand.New(rand.NewSource(20261121))

func pick[T any](list ...T) T { return list[r.Intn(len(list))] }

type quantityCase struct {
	Text   string `json:"text"`
	OK     bool   `json:"ok"`
	Millis int64  `json:"millis,omitempty"`
	Units  int64  `json:"units,omitempty"`
}

func quantities() (out []quantityCase) {
	for i := 0; i < 400; i++ {
		number := pick(fmt.Sprint(r.Intn(2000)), fmt.Sprintf("%d.%d", r.Intn(100), r.Intn(100000)), fmt.Sprintf("0.%012d", r.Int63n(1e12)),
			fmt.Sprintf(".%d", r.Intn(1000)), fmt.Sprintf("%d.", r.Intn(10)), fmt.Sprint(r.Int63()), "00012", "1.2.3", "")
		sign := pick("", "", "", "", "+", "-")
		suffix := pick("", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
			fmt.Sprintf("e%d", r.Intn(12)-6), fmt.Sprintf("E%d", r.Intn(9)), "K", "e", "mi", "KiB", "e+3", "i", "e3.1", " ")
		text := sign + number + suffix
		q, err := resource.ParseQuantity(text)
		c := quantityCase{Text: text, OK: err == nil}
		if err == nil && q.Sign() >= 0 {
			c.Millis, c.Units = q.MilliValue(), q.Value()
		}
		out = append(out, c)
	}
	return out
}

type podCase struct {
	Spec     v1.PodSpec       `json:"spec"`
	Requests map[string]int64 `json:"requests"`
	Limits   map[string]int64 `json:"limits"`
}

func amounts(scale int) v1.ResourceList {
	list := v1.ResourceList{}
	put := func(name v1.ResourceName, text string) { list[name] = resource.MustParse(text) }
	if r.Intn(3) > 0 {
		put(v1.ResourceCPU, pick(fmt.Sprintf("%dm", scale*r.Intn(900)), fmt.Sprintf("%d.%d", scale, r.Intn(100)), "0"))
	}
	if r.Intn(3) > 0 {
		put(v1.ResourceMemory, pick(fmt.Sprintf("%dMi", scale*r.Intn(900)), fmt.Sprintf("%dM", scale*r.Intn(900)), fmt.Sprintf("%d.5Gi", r.Intn(3)), "0"))
	}
	if r.Intn(4) == 0 {
		put(v1.ResourceEphemeralStorage, fmt.Sprintf("%dMi", scale*r.Intn(900)))
	}
	if r.Intn(8) == 0 {
		put("example.com/foo", fmt.Sprint(r.Intn(4)))
	}
	return list
}

func container(i int) v1.Container {
	c := v1.Container{Name: fmt.Sprintf("c%d", i)}
	if r.Intn(5) > 0 {
		c.Resources.Requests = amounts(1)
	}
	if r.Intn(3) > 0 {
		c.Resources.Limits = amounts(3)
	}
	return c
}

func millis(list v1.ResourceList) map[string]int64 {
	out := map[string]int64{}
	for name, q := range list {
		if name == v1.ResourceCPU {
			out[string(name)] = q.MilliValue()
		} else {
			out[string(name)] = q.Value()
		}
	}
	return out
}

func pods() (out []podCase) {
	always := v1.ContainerRestartPolicyAlways
	for i := 0; i < 120; i++ {
		spec := v1.PodSpec{}
		for n := r.Intn(3) + 1; n > 0; n-- {
			spec.Containers = append(spec.Containers, container(len(spec.Containers)))
		}
		for n := r.Intn(4); n > 0; n-- {
			c := container(100 + n)
			if r.Intn(2) == 0 {
				c.RestartPolicy = &always
			}
			spec.InitContainers = append(spec.InitContainers, c)
		}
		if r.Intn(4) == 0 {
			spec.Overhead = amounts(1)
		}
		if r.Intn(4) == 0 {
			spec.Resources = &v1.ResourceRequirements{Requests: amounts(5), Limits: amounts(9)}
		}
		// A copy: PodLimits changes the quantities of the pod that it is given.
		pod := &v1.Pod{Spec: *spec.DeepCopy()}
		out = append(out, podCase{spec, millis(helpers.PodRequests(pod, helpers.PodResourcesOptions{})), millis(helpers.PodLimits(pod, helpers.PodResourcesOptions{}))})
	}
	return out
}

type nodeCase struct {
	Spec   v1.PodSpec        `json:"spec"`
	Node   string            `json:"node"`
	Labels map[string]string `json:"labels"`
	Match  bool              `json:"match"`
}

func requirement(fields bool) v1.NodeSelectorRequirement {
	key := pick("zone", "rack", "cores", "none", "bad key", "example.com/a")
	if fields {
		key = "metadata.name"
	}
	op := pick(v1.NodeSelectorOpIn, v1.NodeSelectorOpNotIn, v1.NodeSelectorOpExists, v1.NodeSelectorOpDoesNotExist, v1.NodeSelectorOpGt, v1.NodeSelectorOpLt, "Odd")
	var values []string
	for n := pick(0, 1, 1, 1, 2); n > 0; n-- {
		values = append(values, pick("a", "b", "1", "8", "16", "-4", "n1", "n2", "", "not valid!", "07"))
	}
	return v1.NodeSelectorRequirement{Key: key, Operator: op, Values: values}
}

func selections() (out []nodeCase) {
	for i := 0; i < 300; i++ {
		var terms []v1.NodeSelectorTerm
		for n := r.Intn(3); n > 0; n-- {
			term := v1.NodeSelectorTerm{}
			for m := r.Intn(3); m > 0; m-- {
				term.MatchExpressions = append(term.MatchExpressions, requirement(false))
			}
			if r.Intn(4) == 0 {
				term.MatchFields = append(term.MatchFields, requirement(true))
			}
			terms = append(terms, term)
		}
		spec := v1.PodSpec{Affinity: &v1.Affinity{NodeAffinity: &v1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{NodeSelectorTerms: terms}}}}
		if r.Intn(3) == 0 {
			spec.NodeSelector = map[string]string{pick("zone", "none"): pick("a", "b", "")}
		}
		labels := map[string]string{}
		for _, key := range []string{"zone", "rack", "cores", "example.com/a"} {
			if r.Intn(3) > 0 {
				labels[key] = pick("a", "b", "1", "8", "16", "")
			}
		}
		name := pick("n1", "n2")
		node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
		match, _ := nodeaffinity.GetRequiredNodeAffinity(&v1.Pod{Spec: spec}).Match(node)
		out = append(out, nodeCase{spec, name, labels, match})
	}
	return out
}

type taintCase struct {
	Taints      []v1.Taint      `json:"taints"`
	Tolerations []v1.Toleration `json:"tolerations"`
	Untolerated string          `json:"untolerated,omitempty"`
}

func tolerations() (out []taintCase) {
	effects := []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute, v1.TaintEffectPreferNoSchedule}
	value := func() string { return pick("", "a", "5", "10", "-3", "007", "+5") }
	for i := 0; i < 200; i++ {
		c := taintCase{Taints: []v1.Taint{}, Tolerations: []v1.Toleration{}}
		for n := r.Intn(3); n > 0; n-- {
			c.Taints = append(c.Taints, v1.Taint{Key: pick("k1", "k2"), Value: value(), Effect: pick(effects...)})
		}
		for n := r.Intn(3); n > 0; n-- {
			c.Tolerations = append(c.Tolerations, v1.Toleration{Key: pick("k1", "k2", ""), Value: value(), Effect: pick(append(effects, "")...),
				Operator: pick(v1.TolerationOpEqual, v1.TolerationOpExists, v1.TolerationOpLt, v1.TolerationOpGt, "", "Odd")})
		}
		stops := func(t *v1.Taint) bool { return t.Effect != v1.TaintEffectPreferNoSchedule }
		if taint, found := corev1.FindMatchingUntoleratedTaint(klog.Background(), c.Taints, c.Tolerations, stops, true); found {
			c.Untolerated = taint.Key + "=" + taint.Value + ":" + string(taint.Effect)
		}
		out = append(out, c)
	}
	return out
}

func write[T any](kind string, cases []T) {
	for _, c := range cases {
		if err := json.NewEncoder(os.Stdout).Encode(map[string]T{kind: c}); err != nil {
			panic(err)
		}
	}
}

func main() {
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	write("quantity", quantities())
	write("pod", pods())
	write("selection", selections())
	write("toleration", tolerations())
}
