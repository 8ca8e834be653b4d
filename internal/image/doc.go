// Package image knows what image files are: the metadata they carry, how to
// unpack them, how to render their templates, and how to build some.
//
// An image is one tarball with metadata.yaml, rootfs/ and templates/ at its top
// (unified), or two files: a tarball of the metadata and templates, and the
// root filesystem as squashfs or tarball (split). Its fingerprint is the
// SHA-256 of the bytes of the one file, or of the two in that order.
//
// Image files are untrusted. The functions at package level do their work in
// this process and touch nothing but what they are given; a [Tools] runs them
// in confined helpers (package helper), and that is what a daemon uses. Its
// main function registers [Helpers].
//
//   - [ParseMetadata], [Inspect]: what a file says about itself
//   - [Extract]: a tarball into a directory, which no entry can leave
//   - [Render], [ApplyTemplates]: files written on create, copy, rename, start
//   - [BuildDebian], [BuildBusybox]: images from the distribution's packages
//   - [MatchFingerprint]: partial fingerprints
//
// The package knows no database, no API server and no storage.
package image
