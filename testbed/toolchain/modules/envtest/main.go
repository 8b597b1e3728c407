// Command envtest-start times controller-runtime's envtest: it starts the etcd and kube-apiserver found in
// KUBEBUILDER_ASSETS, prints the seconds that Start took as JSON, and stops them again.
// `testbed bench` runs it beside the embedded control plane, on the same binaries.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

func main() {
	environment := &envtest.Environment{}
	began := time.Now()
	if _, err := environment.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "envtest did not start:", err)
		os.Exit(1)
	}
	ready := time.Since(began).Seconds()
	if err := environment.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "envtest did not stop:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]float64{"ready_seconds": ready}); err != nil {
		os.Exit(1)
	}
}
