// Command load sends HTTP requests at a constant rate, whether or not the earlier ones were answered (an open model),
// with vegeta's library. It writes one JSON line per interval and a last one with the summary.
//
// What it adds to vegeta's own command: latencies count from the moment at which a request was due, answers are counted
// by the release that gave them, requests that were due and never sent are counted, and Go's silent retry of a request
// whose connection was closed is off: such a request is lost, and must be seen to be.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// catchUp is how long after the end requests that were due before it are still sent. A busy machine is late by
// milliseconds; who is later than this has too few in flight, and what is left counts as never sent.
const catchUp = time.Second

type headers struct{ http.Header }

func (h headers) Set(text string) error {
	name, value, found := strings.Cut(text, ":")
	if !found {
		return fmt.Errorf("%q is not NAME: VALUE", text)
	}
	h.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	return nil
}

func (h headers) String() string { return "" }

// noRetry takes away what net/http needs to send a request a second time on a new connection: a body it could rewind.
type noRetry struct{ next http.RoundTripper }

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
func (nothing) Close() error             { return nil }

func (t noRetry) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body == nil || request.Body == http.NoBody {
		request.Body = nothing{}
	}
	request.GetBody = nil
	return t.next.RoundTrip(request)
}

func fail(message string, arguments ...any) {
	fmt.Fprintf(os.Stderr, message+"\n", arguments...)
	os.Exit(2)
}

func main() {
	header := headers{http.Header{}}
	target := flag.String("url", "", "where requests go; a loopback address")
	method := flag.String("method", "GET", "of the requests")
	rate := flag.Float64("rate", 0, "requests per second")
	duration := flag.Duration("duration", 0, "how long; without it, until SIGTERM")
	timeout := flag.Duration("timeout", 10*time.Second, "of one request")
	interval := flag.Duration("interval", time.Second, "between two lines of results")
	workers := flag.Uint64("max-in-flight", 2000, "requests that may wait for an answer at a time")
	keepAlive := flag.Bool("keep-alive", true, "use connections again")
	releaseHeader := flag.String("release-header", "X-Testbed-Version", "header that names the release that answered")
	releaseField := flag.String("release-field", "version", "field of a JSON answer that does, where the header is missing")
	output := flag.String("output", "", "file for the results")
	flag.Var(header, "header", "NAME: VALUE of each request, as often as wanted")
	flag.Parse()

	where, err := url.Parse(*target)
	if err != nil || where.Host == "" {
		fail("-url %q is no URL", *target)
	}
	if address := net.ParseIP(where.Hostname()); address == nil || !address.IsLoopback() {
		fail("-url %s is not a loopback address", *target)
	}
	if *rate <= 0 || *interval <= 0 || *timeout <= 0 || *output == "" {
		fail("-rate, -interval and -timeout must be positive, and -output a file")
	}
	file, err := os.OpenFile(*output, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		fail("%v", err)
	}

	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: *timeout, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConnsPerHost: int(*workers),
		DisableKeepAlives:   !*keepAlive,
		DisableCompression:  true,
	}
	client := &http.Client{
		Transport:     noRetry{transport},
		Timeout:       *timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	attacker := vegeta.NewAttacker(vegeta.Client(client), vegeta.MaxWorkers(*workers))
	schedule := &schedule{gap: float64(time.Second) / *rate, duration: *duration}
	targeter := vegeta.NewStaticTargeter(vegeta.Target{Method: *method, URL: *target, Header: header.Header})

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	counts := newCounts(schedule, *releaseHeader, *releaseField)
	results := attacker.Attack(targeter, schedule, 0, "")
	stopLater := func(after time.Duration) { time.AfterFunc(after, func() { attacker.Stop() }) }
	if *duration > 0 {
		stopLater(*duration + catchUp)
	}
	encoder := json.NewEncoder(file)
	ticker := time.NewTicker(*interval)
	defer ticker.Stop()
	for {
		select {
		case result, more := <-results:
			if !more {
				schedule.end(time.Now())
				_ = encoder.Encode(counts.interval(time.Now()))
				if err := encoder.Encode(map[string]any{"summary": counts.summary()}); err != nil {
					fail("%v", err)
				}
				return
			}
			counts.add(result)
			if counts.received == 1 { // whoever waits for the first answer need not wait for the interval
				_ = encoder.Encode(counts.interval(time.Now()))
			}
		case now := <-ticker.C:
			if err := encoder.Encode(counts.interval(now)); err != nil {
				fail("%v", err)
			}
		case <-stop:
			schedule.end(time.Now())
			stopLater(catchUp)
		}
	}
}
