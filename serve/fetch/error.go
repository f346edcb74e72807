package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"unicode"
)

// Kind says whose the mistake is. Its text is a code for machines.
type Kind string

const (
	// BadURL: the URL is not one of http or https that can be fetched.
	BadURL Kind = "bad_url"
	// NotListed: the operator has not listed the host, or not with this port.
	NotListed Kind = "host_not_listed"
	// NotPublic: the host has an address that is not on the public internet.
	NotPublic Kind = "address_not_public"
	// TooLarge: the file is larger than Options.MaxBytes.
	TooLarge Kind = "too_large"
	// NotFound: there is no such host, or it answers that it has no such file or
	// does not give it to us (status 4xx).
	NotFound Kind = "not_found"
	// Unavailable: the host cannot be reached, is too slow, fails, redirects too
	// often or does not speak HTTP. Trying again later may help.
	Unavailable Kind = "unavailable"
)

// Status returns the HTTP status for the client that sent the URL. It is never one
// for which clients repeat a request by themselves (408, 409, 425, 429, 5xx),
// because every repetition would fetch again.
func (k Kind) Status() int {
	switch k {
	case NotListed, NotPublic:
		return http.StatusForbidden
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case NotFound:
		return http.StatusUnprocessableEntity
	case Unavailable:
		return http.StatusFailedDependency
	}
	return http.StatusBadRequest
}

// instead is what a client can always do.
const instead = "send the picture itself, as a data URI"

// Error is why a URL was not fetched. Its text is meant for the client: it contains
// no query of a URL, no private address, and nothing that the host sent but its
// status.
type Error struct {
	Kind Kind
	// URL is the URL that failed, without user, query and fragment.
	URL string
	// From is the URL that redirected there, in the same form; "" if none did.
	From string
	// Address is the address that was refused or could not be reached, for the log.
	Address netip.Addr
	// Err is the cause, for the log: it may contain private addresses. It may be nil.
	Err error

	message string
}

func (e *Error) Error() string {
	s := "cannot fetch " + e.URL
	if e.From != "" {
		s += " (to which " + e.From + " redirects)"
	}
	return s + ": " + e.message
}

func (e *Error) Unwrap() error { return e.Err }

// printable returns a URL without user, query, fragment and control characters, cut
// to a length that people read.
func printable(raw string) string {
	raw = raw[:min(len(raw), maxURL)]
	raw, _, _ = strings.Cut(raw, "#")
	raw, _, _ = strings.Cut(raw, "?")
	if u, err := url.Parse(raw); err == nil && u.Opaque == "" {
		u.User = nil
		raw = u.String()
	} else if at := strings.LastIndexByte(raw, '@'); at >= 0 {
		raw = "…" + raw[at+1:] // whatever is before it may be a password
	}
	raw = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, raw)
	const most = 200
	if runes := []rune(raw); len(runes) > most {
		raw = string(runes[:most]) + "…"
	}
	if raw == "" {
		return `""`
	}
	return raw
}

// words says what went wrong with a connection, without the addresses and the bytes
// that the texts of Go's errors contain.
func words(err error) string {
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.As(err, &verify):
		return "its TLS certificate is not valid for this host, or not signed by an authority that this machine knows"
	case errors.As(err, &alert), errors.As(err, &record):
		return "it did not agree on a TLS connection"
	case errors.Is(err, errHeader):
		return "the header of its answer is too long"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "it refuses connections"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "there is no route to it"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it does not answer"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection before the file was complete"
	}
	return "it did not answer as an HTTP server does"
}
