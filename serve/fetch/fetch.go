// Package fetch gets the pictures that clients of the server name by URL. A server
// that fetches what others name reaches whatever it can reach itself: services on
// its own machine, the private network around it, the credentials that clouds serve
// on a link-local address. So
//
//   - only http and https URLs of hosts that the operator has listed are fetched, on
//     the default port of the scheme or on one listed with the host;
//   - every redirect is checked like the first URL, and there are at most three;
//   - a host is resolved once for each request, every address that it has must be on
//     the public internet, and exactly one of these is dialed: a second answer of
//     DNS is never asked for;
//   - neither proxies of the environment, nor cookies, nor a login are used, and no
//     connection is used twice;
//   - the size and the time of it all are bounded.
//
// What a file says about its own type is not looked at: the decoder of pictures does
// that.
package fetch

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxRedirects is how many redirects are followed.
const maxRedirects = 3

// maxHeader is the largest size of a response's header in bytes.
const maxHeader = 64 << 10

// maxAddresses is how many addresses of a host are tried.
const maxAddresses = 4

// Options of a Fetcher.
type Options struct {
	// Hosts lists what may be fetched from: "example.org" is that host,
	// "*.example.org" all of its subdomains, "93.184.215.14" or "[2606:2800::1]" an
	// address. With ":8443" it is that port and no other; without a port, 80 for
	// http and 443 for https. If there are none, nothing is fetched.
	Hosts []string
	// MaxBytes is the size of the largest file.
	MaxBytes int64
	// Timeout is the most time for one URL, with DNS and all redirects.
	Timeout time.Duration
}

// A Fetcher fetches files from the hosts of a list. Any number of goroutines may use
// it.
type Fetcher struct {
	hosts   []entry
	max     int64
	timeout time.Duration

	// Tests replace these three. Every address is checked before dial has it, so a
	// test whose hosts have public addresses goes through all checks.
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	roots  *x509.CertPool // nil for the system's
}

// New returns a Fetcher. It returns an error that names --fetch-host if a host is not
// one that could be fetched from.
func New(o Options) (*Fetcher, error) {
	if o.MaxBytes <= 0 || o.Timeout <= 0 {
		return nil, fmt.Errorf("fetch: MaxBytes is %d and Timeout is %v; both must be positive", o.MaxBytes, o.Timeout)
	}
	f := &Fetcher{max: o.MaxBytes, timeout: o.Timeout, lookup: lookup, dial: dial}
	for _, s := range o.Hosts {
		e, err := parseEntry(s)
		if err != nil {
			return nil, err
		}
		f.hosts = append(f.hosts, e)
	}
	return f, nil
}

// lookup resolves a host. Go's own resolver, unlike the C library's, can be canceled
// and takes only four decimal numbers for an IPv4 address. A dot at the end keeps the
// search domains of resolv.conf out; names without a dot are in /etc/hosts, where Go
// would not find them with one.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if strings.Contains(host, ".") {
		host += "."
	}
	r := net.Resolver{PreferGo: true}
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	for i, a := range addrs {
		addrs[i] = a.Unmap() // Go returns IPv4 addresses as IPv4-mapped ones
	}
	return addrs, err
}

// dial connects to an address. The check is repeated where nothing can change it any
// more: between the creation of the socket and connect(2).
func dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{
		KeepAlive: -1,
		Control: func(_, address string, _ syscall.RawConn) error {
			if a, err := netip.ParseAddrPort(address); err != nil || a != to || !public(a.Addr()) {
				return private{address}
			}
			return nil
		},
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// Get returns the content of the file that a URL names. The error is an *Error,
// unless ctx ends first: then it is the cause of that.
func (f *Fetcher) Get(ctx context.Context, rawURL string) ([]byte, error) {
	t, bad := f.check(rawURL)
	if bad != nil {
		return nil, bad
	}
	limited, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	var from string
	for range maxRedirects + 1 {
		data, next, bad := f.get(limited, t)
		if bad == nil && next == "" {
			return data, nil
		}
		here := printable(t.url.String())
		if bad == nil {
			if t, bad = f.check(next); bad == nil {
				from = here
				continue
			}
			bad.From = here
			return nil, bad
		}
		if ended(ctx) {
			return nil, fmt.Errorf("fetching %s: %w", here, context.Cause(ctx))
		}
		if bad.Kind == Unavailable && ended(limited) {
			bad.message = fmt.Sprintf("the whole file did not arrive within %v; "+instead, f.timeout)
		}
		bad.URL, bad.From = here, from
		return nil, bad
	}
	return nil, &Error{Kind: Unavailable, URL: printable(t.url.String()), From: from,
		message: fmt.Sprintf("there are more than %d redirects; name the URL at which they end", maxRedirects)}
}

// ended reports whether a context has ended. A dial ends with its deadline, which can
// be a moment before the context does.
func ended(ctx context.Context) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= 0 {
		<-ctx.Done()
	}
	return ctx.Err() != nil
}

// resolve returns the addresses of a host, all of them public.
func (f *Fetcher) resolve(ctx context.Context, t *target) ([]netip.Addr, *Error) {
	addrs := []netip.Addr{t.addr}
	if !t.addr.IsValid() {
		var err error
		addrs, err = f.lookup(ctx, t.host)
		if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound || err == nil && len(addrs) == 0 {
			return nil, &Error{Kind: NotFound, Err: err, message: "there is no host of this name; check the URL"}
		}
		if err != nil {
			return nil, &Error{Kind: Unavailable, Err: err, message: "the address of the host could not be looked up; try again later, or " + instead}
		}
	}
	for _, a := range addrs {
		if !public(a) {
			return nil, &Error{Kind: NotPublic, Address: a,
				message: "the host has an address that is not on the public internet; " + instead}
		}
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// connect connects to the first of a host's addresses that answers, with TLS for
// https. Each address has an equal share of the time that is left.
func (f *Fetcher) connect(ctx context.Context, addrs []netip.Addr, t *target) (conn net.Conn, err error) {
	deadline, _ := ctx.Deadline()
	for i, a := range addrs {
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		conn, err = f.dial(share, netip.AddrPortFrom(a, t.port))
		cancel()
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if t.url.Scheme == "http" {
		return conn, nil
	}
	secure := tls.Client(conn, &tls.Config{ServerName: t.host, RootCAs: f.roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// errHeader is that a host sends too long a header.
var errHeader = errors.New("the header is too long")

// answer reads the header of the response to a request.
func answer(conn net.Conn, request *http.Request) (*http.Response, error) {
	header := &io.LimitedReader{R: conn, N: maxHeader}
	buffered := bufio.NewReader(header)
	for {
		response, err := http.ReadResponse(buffered, request)
		switch {
		case err != nil && header.N <= 0:
			return nil, errHeader
		case err != nil:
			return nil, err
		case response.StatusCode/100 != 1 || response.StatusCode == http.StatusSwitchingProtocols:
			header.N = math.MaxInt64 // the body has a limit of its own
			return response, nil
		} // others are sent before the response: 103 Early Hints
	}
}

// get makes one request. It returns the file, or the URL of a redirect.
func (f *Fetcher) get(ctx context.Context, t *target) (data []byte, next string, bad *Error) {
	addrs, bad := f.resolve(ctx, t)
	if bad != nil {
		return nil, "", bad
	}
	unavailable := func(err error) *Error {
		bad := &Error{Kind: Unavailable, Address: addrs[0], Err: err,
			message: fmt.Sprintf("%s: %s; check the URL, or "+instead, t.url.Host, words(err))}
		if errors.As(err, new(private)) {
			bad.Kind, bad.message = NotPublic, "the host has an address that is not on the public internet; "+instead
		}
		return bad
	}
	conn, err := f.connect(ctx, addrs, t)
	if err != nil {
		return nil, "", unavailable(err)
	}
	defer conn.Close()                                      // not the body's Close, which would read all of it
	defer context.AfterFunc(ctx, func() { conn.Close() })() // ends a read or write in progress
	request := &http.Request{Method: http.MethodGet, URL: t.url, Host: t.url.Host, Close: true, Header: http.Header{
		"User-Agent":      {"cyclecap"},
		"Accept":          {"image/jpeg, image/png, image/webp, image/gif, image/bmp, */*;q=0.1"}, // some hosts choose the format by it
		"Accept-Encoding": {"identity"},                                                           // a bomb of 1 kB could unpack to gigabytes
	}}
	if err := request.Write(conn); err != nil {
		return nil, "", unavailable(err)
	}
	response, err := answer(conn, request)
	if err != nil {
		return nil, "", unavailable(err)
	}
	data, next, bad = f.read(t, response)
	if bad != nil {
		bad.Address = addrs[0]
	}
	return data, next, bad
}

// read returns the file in a response, or the URL of a redirect.
func (f *Fetcher) read(t *target, response *http.Response) (data []byte, next string, bad *Error) {
	unavailable := func(err error, format string, args ...any) (data []byte, next string, bad *Error) {
		return nil, "", &Error{Kind: Unavailable, Err: err, message: t.url.Host + fmt.Sprintf(format, args...)}
	}
	switch code := response.StatusCode; code {
	case http.StatusOK:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		next, err := t.url.Parse(response.Header.Get("Location"))
		if err != nil || response.Header.Get("Location") == "" {
			return unavailable(err, " redirects without a valid Location; name the URL of the file itself")
		}
		return nil, next.String(), nil
	default:
		status := strconv.Itoa(code)
		if text := http.StatusText(code); text != "" {
			status += " (" + text + ")"
		}
		_, _, bad = unavailable(nil, " answers %s instead of 200; check the URL, or "+instead, status)
		if code/100 == 4 && code != http.StatusRequestTimeout && code != http.StatusTooEarly && code != http.StatusTooManyRequests {
			bad.Kind = NotFound
		}
		return nil, "", bad
	}
	large := &Error{Kind: TooLarge, message: fmt.Sprintf("the file has more than %d bytes, the limit of this server; send a smaller picture", f.max)}
	if response.ContentLength > f.max {
		return nil, "", large
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return unavailable(nil, " sends the file compressed, which was not asked for; "+instead)
	}
	data, err := io.ReadAll(http.MaxBytesReader(nil, response.Body, f.max))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, "", large
	case err != nil:
		return unavailable(err, ": %s; check the URL, or "+instead, words(err))
	}
	return data, "", nil
}
