// Package e2e tests the daemons on the real parts: the ingest, scaler and worker
// binaries as processes, a redis-server, Google's Pub/Sub emulator, a bucket that
// announces its uploads there, and gcloud as an uploader. It has the build tag e2e.
package e2e
