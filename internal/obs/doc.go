// Package obs is how a Tidemill process is observed: zap loggers whose JSON is
// Cloud Logging's own structure, a Prometheus registry, health conditions, and
// the HTTP server that shows metrics and health.
//
// Nothing here is global: a process makes one logger, one registry and one
// Health, and hands them to its parts.
package obs
