package main

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// nobody is the release of an answer that names none: the gateway's own, or none at all.
const nobody = "-"

// schedule says when each request is due: request n at n gaps after the beginning.
type schedule struct {
	mutex    sync.Mutex
	began    time.Time
	ended    time.Time
	gap      float64 // nanoseconds
	duration time.Duration
}

// Pace makes it a vegeta pacer. It is asked for one request after the other, and late ones go out at once.
func (s *schedule) Pace(elapsed time.Duration, sent uint64) (time.Duration, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.began.IsZero() {
		s.began = time.Now().Add(-elapsed)
	}
	due := time.Duration(float64(sent) * s.gap)
	if s.duration > 0 && due >= s.duration || !s.ended.IsZero() && s.began.Add(due).After(s.ended) {
		return 0, true
	}
	return due - elapsed, false
}

// Rate is in requests per second.
func (s *schedule) Rate(time.Duration) float64 { return float64(time.Second) / s.gap }

func (s *schedule) due(number uint64) time.Time {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.began.Add(time.Duration(float64(number) * s.gap))
}

// end says that no request is due after this, nor after the duration; only the first call counts.
func (s *schedule) end(now time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if last := s.began.Add(s.duration); s.duration > 0 && last.Before(now) {
		now = last
	}
	if s.ended.IsZero() {
		s.ended = now
	}
}

// planned is how many requests were due by now.
func (s *schedule) planned(now time.Time) uint64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.began.IsZero() {
		return 0
	}
	if !s.ended.IsZero() && s.ended.Before(now) {
		now = s.ended
	}
	elapsed := now.Sub(s.began)
	if s.duration > 0 && elapsed >= s.duration {
		return uint64(math.Ceil(float64(s.duration) / s.gap))
	}
	return uint64(float64(elapsed)/s.gap) + 1
}

// group counts the answers of one release.
type group struct {
	Answers  uint64            `json:"answers"`
	Failed   uint64            `json:"failed"`
	Statuses map[string]uint64 `json:"statuses"`
	Errors   map[string]uint64 `json:"errors,omitempty"`
	First    float64           `json:"first"` // when the first and the last of these requests were sent, Unix seconds
	Last     float64           `json:"last"`
	Latency  percentiles       `json:"latency"`
	latency  vegeta.LatencyMetrics
}

// percentiles are seconds from when a request was due to its last byte.
type percentiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func of(metrics vegeta.LatencyMetrics) percentiles {
	quantile := func(share float64) float64 {
		return min(metrics.Quantile(share), metrics.Max).Seconds()
	}
	if metrics.Max == 0 {
		return percentiles{}
	}
	return percentiles{quantile(0.5), quantile(0.9), quantile(0.99), metrics.Max.Seconds()}
}

type tally struct {
	releases map[string]*group
	latency  vegeta.LatencyMetrics
	lateness vegeta.LatencyMetrics
}

func newTally() *tally { return &tally{releases: map[string]*group{}} }

func (t *tally) add(release string, result *vegeta.Result, latency, lateness time.Duration) {
	found := t.releases[release]
	if found == nil {
		found = &group{Statuses: map[string]uint64{}, Errors: map[string]uint64{}}
		t.releases[release] = found
	}
	sent := unix(result.Timestamp)
	if found.Answers == 0 || sent < found.First {
		found.First = sent
	}
	found.Last = max(found.Last, sent)
	found.Answers++
	found.Statuses[strconv.Itoa(int(result.Code))]++
	if result.Code < 200 || result.Code >= 400 || result.Error != "" {
		found.Failed++
		found.Errors[reason(result.Error)]++
	}
	found.latency.Add(latency)
	t.latency.Add(latency)
	t.lateness.Add(lateness)
}

func (t *tally) groups() map[string]*group {
	for _, found := range t.releases {
		found.Latency = of(found.latency)
	}
	return t.releases
}

type counts struct {
	schedule      *schedule
	header, field string
	received      uint64
	now, all      *tally
}

func newCounts(schedule *schedule, header, field string) *counts {
	return &counts{schedule: schedule, header: header, field: field, now: newTally(), all: newTally()}
}

func (c *counts) add(result *vegeta.Result) {
	c.received++
	due := c.schedule.due(result.Seq)
	release := c.release(result)
	latency, lateness := max(result.End().Sub(due), 1), max(result.Timestamp.Sub(due), 1)
	c.now.add(release, result, latency, lateness)
	c.all.add(release, result, latency, lateness)
}

func (c *counts) release(result *vegeta.Result) string {
	if named := result.Headers.Get(c.header); named != "" {
		return named
	}
	if c.field != "" && len(result.Body) > 0 && result.Body[0] == '{' {
		var fields map[string]json.RawMessage
		var named string
		if json.Unmarshal(result.Body, &fields) == nil && json.Unmarshal(fields[c.field], &named) == nil && named != "" {
			return named
		}
	}
	return nobody
}

// interval is what came back since the last call.
func (c *counts) interval(now time.Time) map[string]any {
	line := map[string]any{
		"end":      unix(now),
		"planned":  c.schedule.planned(now),
		"received": c.received,
		"releases": c.now.groups(),
		"latency":  of(c.now.latency),
	}
	c.now = newTally()
	return line
}

// summary is of the whole run; every request that was sent has come back or timed out by then.
func (c *counts) summary() map[string]any {
	planned := c.schedule.planned(c.schedule.ended)
	return map[string]any{
		"planned":  max(planned, c.received),
		"sent":     c.received,
		"began":    unix(c.schedule.began),
		"ended":    unix(c.schedule.ended),
		"latency":  of(c.all.latency),
		"lateness": of(c.all.lateness),
		"releases": c.all.groups(),
	}
}

// reason is an error without what differs from request to request.
func reason(text string) string {
	if text == "" {
		return "none"
	}
	if _, after, found := strings.Cut(text, "\": "); found {
		text = after
	}
	for _, known := range []string{"connection reset by peer", "connection refused", "EOF", "Client.Timeout exceeded"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	return text
}

func unix(moment time.Time) float64 { return float64(moment.UnixNano()) / 1e9 }
