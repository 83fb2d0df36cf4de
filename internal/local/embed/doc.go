// Package embed runs stand-ins for the services that Tidemill needs inside one
// process: a bucket that announces its uploads, Pub/Sub, and Redis. They keep
// everything in memory, take no credentials and are meant for one machine: they
// forget all when they stop.
//
// # What differs from the real services
//
// The bucket checks conditions on uploads and deletes only, not on patches, copies
// and compositions; it looks names up one by one, so its speed falls with the
// number of objects. Its notifications lack the notificationConfig attribute and
// carry whole seconds. Pub/Sub drops what nobody has taken for ten minutes: after
// a longer pause the bucket has to be listed. It hands each stream no more than
// about ninety messages a second, so receive with Streams of them.
package embed
