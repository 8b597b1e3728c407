// Command podinfo runs podinfo's own HTTP server for one pod of the testbed.
//
// Upstream's server, handlers, metrics and shutdown are used as they are. What differs from upstream's command:
//   - it listens on the pod's loopback address only (upstream's ports for metrics and gRPC listen on all addresses; the
//     metrics port is served here, gRPC is not);
//   - its version is the tag of the pod's image, so that one build stands for every release;
//   - the latency histogram has finer buckets below 50 ms;
//   - a middleware gives a release the faults that a scenario asks for (faults.go), inside of what is measured;
//   - every answer names the release and the pod in the headers X-Testbed-Version and X-Testbed-Pod.
//
// The testbed passes what a container would find in its surroundings by environment variables: TESTBED_POD_ADDRESS,
// TESTBED_IMAGE_TAG, HOSTNAME, TESTBED_FAULTS, TESTBED_FLAGS.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	api "github.com/stefanprodan/podinfo/pkg/api/http"
	"github.com/stefanprodan/podinfo/pkg/signals"
	"github.com/stefanprodan/podinfo/pkg/version"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// buckets tell latencies around the platform's objective (28 ms) apart; upstream's end at 25 and 50 ms.
var buckets = []float64{
	.001, .0025, .005, .0075, .01, .015, .02, .025, .028, .03, .035, .04, .05, .075,
	.1, .15, .2, .25, .3, .4, .5, .75, 1, 1.5, 2.5, 5, 10,
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "podinfo:", err)
		os.Exit(1)
	}
}

func run() error {
	if tag := os.Getenv("TESTBED_IMAGE_TAG"); tag != "" {
		version.VERSION = tag
	}
	address := os.Getenv("TESTBED_POD_ADDRESS")
	if ip := net.ParseIP(address); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("TESTBED_POD_ADDRESS is %q, not a loopback address", address)
	}
	if len(os.Args) > 1 && os.Args[1] == "check" {
		return check(os.Args[2:])
	}
	if done, err := configure(address); done || err != nil {
		return err
	}
	logger, err := newLogger(viper.GetString("level"))
	if err != nil {
		return err
	}
	defer zap.RedirectStdLog(logger)()
	faults, err := loadFaults(os.Getenv("TESTBED_FAULTS"), os.Getenv("TESTBED_FLAGS"), logger)
	if err != nil {
		return err
	}
	stress(viper.GetInt("stress-cpu"), viper.GetInt("stress-memory"))

	var config api.Config
	if err := viper.Unmarshal(&config); err != nil {
		return err
	}
	metricsPort := config.PortMetrics
	config.PortMetrics = 0
	// A port that is taken is told at once and in words that the pod's status can show.
	for _, port := range []string{config.Port, strconv.Itoa(metricsPort)} {
		if err := free(net.JoinHostPort(address, port)); err != nil {
			return err
		}
	}
	server, err := api.NewServer(&config, logger)
	if err != nil {
		return err
	}
	logger.Info("starting podinfo", zap.String("version", version.VERSION), zap.String("address", address),
		zap.String("port", config.Port))
	instrument(server, faults)
	faults.start()
	httpServer, httpsServer, healthy, ready := server.ListenAndServe()
	if metricsPort > 0 {
		go serveMetrics(net.JoinHostPort(address, strconv.Itoa(metricsPort)), logger)
	}
	if viper.GetInt("grpc-port") > 0 {
		logger.Warn("gRPC is not served in the testbed", zap.Int("grpc-port", viper.GetInt("grpc-port")))
	}
	stop := signals.SetupSignalHandler()
	shutdown, err := signals.NewShutdown(config.ServerShutdownTimeout, logger)
	if err != nil {
		return err
	}
	shutdown.Graceful(stop, httpServer, httpsServer, nil, healthy, ready)
	return nil
}

// instrument puts podinfo's own metrics middleware and then the faults in front of everything, so that the faults are
// measured. The server adds the same metrics once more, behind the faults: those go to a registry that nobody reads.
func instrument(server *api.Server, faults *faults) {
	prometheus.DefBuckets = buckets
	router := (*mux.Router)(reflect.ValueOf(server).Elem().FieldByName("router").UnsafePointer())
	router.Use(api.NewPrometheusMiddleware().Handler, faults.handler)
	prometheus.DefaultRegisterer = prometheus.NewRegistry()
}

// configure reads flags, PODINFO_* variables and the configuration file, as upstream's command does.
func configure(address string) (bool, error) {
	flags := pflag.NewFlagSet("podinfo", pflag.ContinueOnError)
	flags.String("host", address, "address to listen on; here always the pod's")
	flags.Int("port", 9898, "port of HTTP")
	flags.Int("secure-port", 0, "port of HTTPS")
	flags.Int("port-metrics", 0, "further port of the metrics")
	flags.Int("grpc-port", 0, "port of gRPC; not served here")
	flags.String("grpc-service-name", "podinfo", "service name of gRPC")
	flags.String("level", "info", "log level: debug, info, warn, error, fatal or panic")
	flags.StringSlice("backend-url", nil, "URLs of backend services")
	flags.Duration("http-client-timeout", 2*time.Minute, "time-out as a client")
	flags.Duration("http-server-timeout", 30*time.Second, "time-out of reads and writes as a server")
	flags.Duration("server-shutdown-timeout", 5*time.Second, "time-out of the graceful shutdown")
	flags.String("data-path", "data", "folder of the store")
	flags.String("config-path", "", "folder of the configuration")
	flags.String("cert-path", "/data/cert", "folder of the certificate for HTTPS")
	flags.String("config", "config.yaml", "name of the configuration file")
	flags.String("ui-path", "./ui", "folder of the UI")
	flags.String("ui-logo", "", "logo of the UI")
	flags.String("ui-color", "#34577c", "colour of the UI")
	flags.String("ui-message", "greetings from podinfo v"+version.VERSION, "message of the UI")
	flags.Bool("h2c", false, "allow an upgrade to H2C")
	flags.Bool("random-delay", false, "delay answers at random")
	flags.String("random-delay-unit", "s", "s or ms")
	flags.Int("random-delay-min", 0, "least random delay")
	flags.Int("random-delay-max", 5, "greatest random delay")
	flags.Bool("random-error", false, "one answer of three is an error")
	flags.Bool("unhealthy", false, "never become healthy")
	flags.Bool("unready", false, "never become ready")
	flags.Int("stress-cpu", 0, "cores to keep busy")
	flags.Int("stress-memory", 0, "MB of memory to fill")
	flags.String("cache-server", "", "Redis, tcp://HOST:PORT")
	flags.String("otel-service-name", "", "name for traces; without it there are none")
	showVersion := flags.BoolP("version", "v", false, "print the version and exit")
	arguments := os.Args[1:]
	for len(arguments) > 0 && !strings.HasPrefix(arguments[0], "-") { // the command's own name: `./podinfo`
		arguments = arguments[1:]
	}
	if err := flags.Parse(arguments); errors.Is(err, pflag.ErrHelp) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	if *showVersion {
		fmt.Println(version.VERSION)
		return true, nil
	}
	if err := viper.BindPFlags(flags); err != nil {
		return false, err
	}
	viper.SetDefault("jwt-secret", "testbed")
	viper.SetEnvPrefix("PODINFO")
	viper.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	viper.AutomaticEnv()
	file := filepath.Join(viper.GetString("config-path"), viper.GetString("config"))
	if _, err := os.Stat(file); err == nil {
		viper.SetConfigFile(file)
		if err := viper.ReadInConfig(); err != nil {
			return false, fmt.Errorf("the configuration %s: %w", file, err)
		}
	}
	viper.Set("hostname", os.Getenv("HOSTNAME"))
	viper.Set("version", version.VERSION)
	viper.Set("revision", version.REVISION)
	viper.Set("host", address)
	if unit := viper.GetString("random-delay-unit"); unit != "s" && unit != "ms" {
		return false, fmt.Errorf("random-delay-unit is %q, not s or ms", unit)
	}
	if least, most := viper.GetInt("random-delay-min"), viper.GetInt("random-delay-max"); most <= least {
		return false, fmt.Errorf("random-delay-max is %d, not above random-delay-min %d", most, least)
	}
	return false, nil
}

func newLogger(level string) (*zap.Logger, error) {
	parsed, err := zapcore.ParseLevel(level)
	if err != nil {
		parsed = zapcore.InfoLevel
	}
	config := zap.NewProductionConfig()
	config.Level = zap.NewAtomicLevelAt(parsed)
	config.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	return config.Build()
}

// free says whether a pod's port can be listened on; port 0 is none.
func free(address string) error {
	if strings.HasSuffix(address, ":0") {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return listener.Close()
}

func serveMetrics(address string, logger *zap.Logger) {
	handler := http.NewServeMux()
	handler.Handle("/metrics", promhttp.Handler())
	handler.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") })
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	if err := server.ListenAndServe(); err != nil {
		logger.Fatal("the metrics are not served", zap.Error(err))
	}
}

var ballast []byte

func stress(cores, megabytes int) {
	for range cores {
		go func() {
			for {
			}
		}()
	}
	ballast = fill(megabytes)
}

// fill returns memory that is really there: every page is written.
func fill(megabytes int) []byte {
	found := make([]byte, megabytes<<20)
	for i := 0; i < len(found); i += 4096 {
		found[i] = 1
	}
	return found
}

// check is what `podcli check http URL` does in upstream's image: an exec probe.
func check(arguments []string) error {
	if len(arguments) != 2 || arguments[0] != "http" {
		return fmt.Errorf("check what? only `check http URL` is known, not %q", arguments)
	}
	url := arguments[1]
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	url = strings.Replace(url, "//localhost", "//"+os.Getenv("TESTBED_POD_ADDRESS"), 1)
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 400 {
		return fmt.Errorf("%s says %s", url, answer.Status)
	}
	return nil
}
