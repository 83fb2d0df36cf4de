// Package daemon wires the loops to their adapters, once for the daemons' own
// binaries and for the laptop mode, so that both run the same.
package daemon
