package serve

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what /metrics shows.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec   // route, status
	latency  *prometheus.HistogramVec // route
	stages   *prometheus.HistogramVec // stage: decode, queue, clip, mapper, caption
	perToken prometheus.Histogram
	tokens   prometheus.Counter
	batch    prometheus.Histogram
	refused  prometheus.Counter
	inFlight prometheus.Gauge
}

// seconds are the bounds of histograms: from a millisecond to a minute.
var seconds = prometheus.ExponentialBuckets(0.001, 2, 17)

func newMetrics(queued func() float64, loaded func() []*model) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cyclecap_requests_total", Help: "Requests that were answered."}, []string{"route", "status"}),
		latency:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "cyclecap_request_seconds", Help: "Time from the request to the end of its answer.", Buckets: seconds}, []string{"route"}),
		stages:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "cyclecap_stage_seconds", Help: "Time in a stage: decode (a photo), queue (a request), clip (a batch of photos), mapper (the prefixes of a batch, on the CPU), caption (a batch of captions, with mapper).", Buckets: seconds}, []string{"stage"}),
		perToken: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cyclecap_token_seconds", Help: "Time of the decoder for a token, over the captions of a batch.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14)}),
		tokens:   prometheus.NewCounter(prometheus.CounterOpts{Name: "cyclecap_tokens_total", Help: "Tokens of captions that were written."}),
		batch:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cyclecap_batch_items", Help: "Photos and texts that were computed together.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: "cyclecap_refused_total", Help: "Requests refused because the queue was full or they waited too long."}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "cyclecap_requests_in_flight", Help: "Requests that are being answered."}),
	}
	m.registry.MustRegister(m.requests, m.latency, m.stages, m.perToken, m.tokens, m.batch, m.refused, m.inFlight,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "cyclecap_queue_length", Help: "Requests that wait for the worker."}, queued),
		&modelCollector{loaded},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// modelCollector shows the models that are loaded.
type modelCollector struct{ loaded func() []*model }

var modelInfo = prometheus.NewDesc("cyclecap_model_loaded_timestamp_seconds", "When a model was loaded, in seconds since 1970.", []string{"model"}, nil)

func (c *modelCollector) Describe(to chan<- *prometheus.Desc) { to <- modelInfo }

func (c *modelCollector) Collect(to chan<- prometheus.Metric) {
	for _, m := range c.loaded() {
		to <- prometheus.MustNewConstMetric(modelInfo, prometheus.GaugeValue, float64(m.loaded.Unix()), m.Name)
		m.uses.Done()
	}
}

func (m *metrics) stage(name string, took time.Duration) {
	m.stages.WithLabelValues(name).Observe(took.Seconds())
}

// prefixes is a clipcap.Options.OnPrefixes.
func (m *metrics) prefixes(took time.Duration) { m.stage("mapper", took) }

func (m *metrics) token(took time.Duration, n int) {
	if n > 0 {
		m.tokens.Add(float64(n))
		m.perToken.Observe(took.Seconds() / float64(n))
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
