// Package conformance only keeps the go.mod requirements of the programs that build builds.
package conformance

import _ "k8s.io/kubernetes/test/e2e/framework"
