//go:build nomodels

// Package world is without its models in a program that was built with the tag nomodels,
// which saves 20 MB where each caption names its own models.
package world

import "embed"

// FS is empty.
var FS embed.FS
