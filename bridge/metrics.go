package bridge

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the counters of one bridge, in a registry of their own. Labels take values from config.yaml, the route table and the tables of
// this package only, never from a request.
type Metrics struct {
	registry    *prometheus.Registry
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	logins      *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	tokenFaults *prometheus.CounterVec
	documents   *prometheus.CounterVec
	tokens      prometheus.Counter
}

// NewMetrics makes the counters. rulesHash names the active rules file.
func NewMetrics(version, rulesHash string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_http_requests_total", Help: "Requests by route, method and status.",
		}, []string{"route", "method", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "oidc_bridge_http_request_duration_seconds", Help: "Time to answer, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_logins_total", Help: "Finished logins by provider.",
		}, []string{"provider"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_refusals_total", Help: "Requests that got an error, by its reason.",
		}, []string{"reason"}),
		tokenFaults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_provider_token_faults_total", Help: "Tokens of providers that were refused, by the check they failed.",
		}, []string{"check"}),
		documents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_provider_document_failures_total", Help: "Discovery documents and key sets that could not be fetched or used.",
		}, []string{"provider", "document"}),
		tokens: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oidc_bridge_access_tokens_total", Help: "Access tokens signed.",
		}),
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "oidc_bridge_info", Help: "1; the labels say which program and rules file are running.",
	}, []string{"version", "rules"})
	info.WithLabelValues(version, rulesHash).Set(1)
	m.registry.MustRegister(m.requests, m.duration, m.logins, m.refusals, m.tokenFaults, m.documents, m.tokens, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler is /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *Metrics) request(route, method string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}

func (m *Metrics) refused(reason string, err error) {
	m.refusals.WithLabelValues(reason).Inc()
	var fault tokenFault
	if errors.As(err, &fault) {
		m.tokenFaults.WithLabelValues(string(fault)).Inc()
	}
}
