package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stefanprodan/podinfo/pkg/version"
	"go.uber.org/zap"
)

// flagsEvery is how often the file with the feature flags is looked at.
const flagsEvery = 100 * time.Millisecond

// settings are what TESTBED_FAULTS holds as JSON; testbed/workloads/faults.py writes and explains them.
type settings struct {
	LatencyMs          float64 `json:"latency_ms"`
	LatencyJitterMs    float64 `json:"latency_jitter_ms"`
	LatencyAtRPS       float64 `json:"latency_ms_per_100_rps"`
	PoolSize           int     `json:"pool_size"`
	PoolHoldMs         float64 `json:"pool_hold_ms"`
	ErrorRate          float64 `json:"error_rate"`
	ErrorStatus        int     `json:"error_status"`
	ColdStartSeconds   float64 `json:"cold_start_seconds"`
	ColdStartMs        float64 `json:"cold_start_latency_ms"`
	MemoryMBPerSecond  float64 `json:"memory_mb_per_second"`
	CrashAfterSeconds  float64 `json:"crash_after_seconds"`
	CrashAfterRequests int64   `json:"crash_after_requests"`
	Flag               string  `json:"flag"`
	Path               string  `json:"path"`
}

type faults struct {
	settings
	flagsFile string
	logger    *zap.Logger
	on        atomic.Bool // without a flag always
	began     time.Time
	requests  atomic.Int64
	perSecond atomic.Int64
	pool      chan struct{} // connections of a pool that are in use
	leak      [][]byte
}

func loadFaults(text, flagsFile string, logger *zap.Logger) (*faults, error) {
	f := &faults{flagsFile: flagsFile, logger: logger, began: time.Now()}
	f.ErrorStatus = http.StatusInternalServerError
	if text != "" {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&f.settings); err != nil {
			return nil, fmt.Errorf("TESTBED_FAULTS: %w", err)
		}
		logger.Info("this release has faults", zap.String("faults", text))
	}
	if f.PoolSize > 0 {
		f.pool = make(chan struct{}, f.PoolSize)
	}
	f.on.Store(f.Flag == "" || f.flag())
	return f, nil
}

// flag reads the feature flag; a file that is missing or half written leaves it as it is.
func (f *faults) flag() bool {
	content, err := os.ReadFile(f.flagsFile)
	if err != nil {
		return f.on.Load()
	}
	var flags map[string]bool
	if err := json.Unmarshal(content, &flags); err != nil {
		return f.on.Load()
	}
	return flags[f.Flag]
}

func (f *faults) start() {
	if f.Flag != "" {
		go func() {
			for range time.Tick(flagsEvery) {
				if now := f.flag(); now != f.on.Swap(now) {
					f.logger.Info("the feature flag flipped", zap.String("flag", f.Flag), zap.Bool("on", now))
				}
			}
		}()
	}
	if f.LatencyAtRPS > 0 {
		go func() {
			before := f.requests.Load()
			for range time.Tick(time.Second) {
				now := f.requests.Load()
				f.perSecond.Store(now - before)
				before = now
			}
		}()
	}
	if f.MemoryMBPerSecond > 0 {
		go func() {
			for range time.Tick(time.Second / 10) {
				if f.on.Load() {
					f.leak = append(f.leak, fill(int(f.MemoryMBPerSecond/10+rand.Float64())))
				}
			}
		}()
	}
	if f.CrashAfterSeconds > 0 {
		time.AfterFunc(time.Duration(f.CrashAfterSeconds*float64(time.Second)), func() {
			if f.on.Load() {
				f.crash()
			}
		})
	}
}

func (f *faults) crash() {
	f.logger.Error("crashing, as this release does")
	os.Exit(2)
}

// spared are the pages that tell how the process is: a slow release still says that it lives.
func spared(path string) bool {
	for _, prefix := range []string{"/healthz", "/readyz", "/metrics", "/debug/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

func (f *faults) handler(next http.Handler) http.Handler {
	pod := os.Getenv("HOSTNAME")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Testbed-Version", version.VERSION)
		header.Set("X-Testbed-Pod", pod)
		if spared(r.URL.Path) || (f.Path != "" && !strings.HasPrefix(r.URL.Path, f.Path)) {
			next.ServeHTTP(w, r)
			return
		}
		count := f.requests.Add(1)
		if f.on.Load() {
			if f.CrashAfterRequests > 0 && count >= f.CrashAfterRequests {
				f.crash()
			}
			if delay := f.delay(); delay > 0 {
				time.Sleep(delay)
			}
			if f.pool != nil {
				f.pool <- struct{}{}
				time.Sleep(milliseconds(f.PoolHoldMs))
				<-f.pool
			}
			if f.ErrorRate > 0 && rand.Float64() < f.ErrorRate {
				http.Error(w, "this release fails", f.ErrorStatus)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (f *faults) delay() time.Duration {
	wait := f.LatencyMs + f.LatencyAtRPS*float64(f.perSecond.Load())/100
	if f.LatencyJitterMs > 0 {
		wait += f.LatencyJitterMs * rand.Float64()
	}
	if f.ColdStartSeconds > 0 && time.Since(f.began).Seconds() < f.ColdStartSeconds {
		wait += f.ColdStartMs
	}
	return milliseconds(wait)
}

func milliseconds(count float64) time.Duration {
	return time.Duration(count * float64(time.Millisecond))
}
