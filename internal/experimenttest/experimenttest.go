// Package experimenttest has a configuration for the tests of several packages.
package experimenttest

import _ "embed" // for Small

// Small is the configuration of an experiment of a few steps. It has no keys before its
// first table.
//
//go:embed small.toml
var Small string
