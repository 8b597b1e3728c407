module testbed.invalid/tools/flagger-crds

go 1.26.0

require github.com/fluxcd/flagger v1.41.0
