// Package gcp is Tidemill's side of Google Cloud: object storage as the bucket
// contract wants it, and messages from a Pub/Sub subscription. It is the only
// package that imports the Cloud Storage and Pub/Sub clients.
//
// # Faults
//
// Every call repeats what may be repeated until its context ends, so give each
// a deadline. All writes and deletes carry a generation precondition, which
// makes them safe to repeat; a repeat that finds its own earlier success is
// told apart from somebody else's by checksum, size and metadata. A server that
// neither sends nor takes anything for a while (see WithStallTimeout) counts as
// a passing fault. Checksums are computed here as well as in the client, and held
// against attributes that were asked for separately: the client checks a download
// only against what came with it, and not at all if no checksum did.
//
// # Emulators
//
// STORAGE_EMULATOR_HOST and PUBSUB_EMULATOR_HOST are honoured as Google's
// clients do: plain text, no credentials. WithEndpoint and Subscription.Endpoint
// do the same for one store or subscription without touching the environment.
package gcp
