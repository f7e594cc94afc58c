package bridge

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oidc-bridge/oidc-bridge/mapping"
)

// Metrics are the counters of one bridge, in a registry of their own. Labels take values from config.yaml, the route table and the tables of
// this package only, never from a request.
type Metrics struct {
	registry    *prometheus.Registry
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	logins      *prometheus.CounterVec
	logouts     *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	tokenFaults *prometheus.CounterVec
	documents   *prometheus.CounterVec
	rechecks    *prometheus.CounterVec
	tokens      prometheus.Counter
	decisions   *prometheus.CounterVec
	loginClaims *prometheus.CounterVec
	rules       *prometheus.GaugeVec
	rulesOK     prometheus.Gauge
	withdrawn   prometheus.Gauge
	listening   prometheus.Gauge
	swept       *prometheus.CounterVec
}

// NewMetrics makes the counters.
func NewMetrics(version string) *Metrics {
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
		logouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_logouts_total", Help: "Sessions that a logout ended: here, or by the provider's back-channel logout.",
		}, []string{"provider", "from"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_refusals_total", Help: "Requests that got an error, by its reason.",
		}, []string{"reason"}),
		tokenFaults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_provider_token_faults_total", Help: "Tokens of providers that were refused, by the check they failed.",
		}, []string{"check"}),
		documents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_provider_document_failures_total", Help: "Discovery documents and key sets that could not be fetched or used.",
		}, []string{"provider", "document"}),
		rechecks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_rechecks_total", Help: "Sessions that were checked at their provider, by what came of it.",
		}, []string{"provider", "outcome"}),
		tokens: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oidc_bridge_access_tokens_total", Help: "Access tokens signed.",
		}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_decisions_total", Help: "Decisions of the rules, at logins and at tokens.",
		}, []string{"provider", "rule", "outcome"}),
		loginClaims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_login_claims_total",
			Help: "Claims that the rules read, at logins: present, absent or broken. A deny rule that reads a claim which is never present can never fire.",
		}, []string{"provider", "claim", "state"}),
		rules: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "oidc_bridge_rules_info", Help: "1; the label is the hash of the rules file in force.",
		}, []string{"hash"}),
		rulesOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "oidc_bridge_rules_reload_ok", Help: "0 while the rules file on disk is one that was refused, 1 otherwise.",
		}),
		withdrawn: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "oidc_bridge_roles_withdrawn", Help: "Roles of the rules file that the database has dropped, revoked or made too powerful since it was loaded.",
		}),
		listening: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "oidc_bridge_listening", Help: "1 while this replica hears from the database what ends a session, and may answer from memory.",
		}),
		swept: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oidc_bridge_rows_removed_total", Help: "Rows that had ended and were removed, by table.",
		}, []string{"table"}),
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "oidc_bridge_info", Help: "1; the label is the version of the program.",
	}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	m.rulesOK.Set(1)
	m.registry.MustRegister(m.requests, m.duration, m.logins, m.logouts, m.refusals, m.tokenFaults, m.documents, m.rechecks, m.tokens, info,
		m.decisions, m.loginClaims, m.rules, m.rulesOK, m.withdrawn, m.listening, m.swept,
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

// loggedOut counts sessions that ended; from is here or provider.
func (m *Metrics) loggedOut(provider, from string, sessions int) {
	m.logouts.WithLabelValues(provider, from).Add(float64(sessions))
}

func (m *Metrics) refused(reason string, err error) {
	m.refusals.WithLabelValues(reason).Inc()
	m.fault(err)
}

// rechecked counts what came of asking the provider again.
func (m *Metrics) rechecked(provider string, outcome recheckOutcome, err error) {
	m.rechecks.WithLabelValues(provider, string(outcome)).Inc()
	m.fault(err)
}

func (m *Metrics) fault(err error) {
	var fault tokenFault
	if errors.As(err, &fault) {
		m.tokenFaults.WithLabelValues(string(fault)).Inc()
	}
}

func (m *Metrics) decided(provider string, d mapping.Decision) {
	m.decisions.WithLabelValues(provider, d.Rule(), d.Outcome().String()).Inc()
}

// claims counts what a login carried of the claims that the rules read.
func (m *Metrics) claims(provider string, d mapping.Decision) {
	for name, value := range d.ReadClaims() {
		state := "present"
		if value == nil {
			state = "absent"
		} else if _, broken := value.(map[string]any); broken {
			state = "broken"
		}
		m.loginClaims.WithLabelValues(provider, name, state).Inc()
	}
}

func (m *Metrics) rulesInForce(hash string, withdrawn int) {
	m.rules.Reset()
	m.rules.WithLabelValues(hash).Set(1)
	m.withdrawn.Set(float64(withdrawn))
}

func (m *Metrics) rulesReload(ok bool) {
	m.rulesOK.Set(0)
	if ok {
		m.rulesOK.Set(1)
	}
}
