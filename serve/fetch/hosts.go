package fetch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxURL is the largest length of a URL in bytes. Signed URLs have up to 2,000.
const maxURL = 8192

// ports of the schemes that are fetched.
var ports = map[string]uint16{"http": 80, "https": 443}

// entry is a host of the list.
type entry struct {
	host       string // without a trailing dot and in lower case; an IPv6 address without brackets
	subdomains bool   // all of the subdomains of host, and not host itself
	port       uint16 // 0 for the default ports of http and https
}

func (e entry) matches(host string, port uint16, scheme string) bool {
	if e.port != port && (e.port != 0 || ports[scheme] != port) {
		return false
	}
	if e.subdomains {
		return strings.HasSuffix(host, "."+e.host)
	}
	return host == e.host
}

// parseEntry reads a value of --fetch-host.
func parseEntry(s string) (entry, error) {
	fail := func(format string, args ...any) (entry, error) {
		return entry{}, fmt.Errorf("--fetch-host %q: "+format, append([]any{s}, args...)...)
	}
	if strings.ContainsAny(s, "/@?#") {
		return fail("want a host name, such as images.example.org, *.example.org or example.org:8443, and no other part of a URL")
	}
	host, port := s, ""
	switch colon, bracket := strings.LastIndexByte(s, ':'), strings.HasPrefix(s, "["); {
	case bracket && strings.HasSuffix(s, "]"):
		host = s[1 : len(s)-1]
	case !bracket && strings.Count(s, ":") > 1:
		return fail("write an IPv6 address in brackets: [%s]", s)
	case colon >= 0:
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil {
			return fail("want a host, or host:port")
		}
	}
	var e entry
	if port != "" || strings.HasSuffix(s, ":") {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return fail("the port is not a number from 1 to 65535")
		}
		e.port = uint16(n)
	}
	host, e.subdomains = strings.CutPrefix(host, "*.")
	name, a, err := normalize(host, strings.HasPrefix(s, "["))
	switch {
	case strings.Contains(host, "*"):
		return fail("* stands only for all subdomains of a host, as in *.example.org")
	case err != nil:
		return fail("%w", err)
	case a.IsValid() && e.subdomains:
		return fail("an address has no subdomains")
	case a.IsValid() && !public(a), name == "localhost", strings.HasSuffix(name, ".localhost"):
		return fail("pictures are fetched from public addresses only, and never from this machine or a private network; have clients send these pictures as data URIs")
	case e.subdomains && !strings.Contains(name, "."):
		return fail("*.%s is a whole top-level domain; name the hosts in it", name)
	}
	e.host = name
	return e, nil
}

// normalize returns a host in the form in which hosts are compared, and its address
// if it is an IP address. It refuses whatever another program might read as an
// address (127.1, 0x7f.1, 2130706433) or as another name.
func normalize(host string, bracket bool) (name string, a netip.Addr, err error) {
	if bracket {
		a, err = netip.ParseAddr(host)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", netip.Addr{}, errors.New("the host in brackets is not an IPv6 address")
		}
		return a.String(), a, nil
	}
	if a, err = netip.ParseAddr(host); err == nil && a.Is4() {
		return a.String(), a, nil
	}
	name = strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" {
		return "", netip.Addr{}, errors.New("the host is missing")
	}
	if len(name) > 253 {
		return "", netip.Addr{}, errors.New("the host name is longer than 253 characters")
	}
	var label string
	for label = range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", netip.Addr{}, errors.New("a part of the host name is empty or longer than 63 characters")
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", netip.Addr{}, errors.New("the host name has characters other than letters, digits, -, _ and the dot; write names in other scripts in Punycode (xn--…)")
			}
		}
	}
	// As browsers do: a name that ends in a number is meant as an address.
	if strings.Trim(label, "0123456789") == "" || strings.HasPrefix(label, "0x") && strings.Trim(label[2:], "0123456789abcdef") == "" {
		return "", netip.Addr{}, errors.New("the host ends in a number and is not an IPv4 address of four decimal numbers")
	}
	return name, netip.Addr{}, nil
}

// target is a URL that has passed check.
type target struct {
	url  *url.URL   // normalized: the host as in the list, no user, no fragment
	host string     // without brackets and port
	addr netip.Addr // the host, if it is an IP address
	port uint16
}

// check parses a URL and refuses it if it may not be fetched, whatever its host
// resolves to.
func (f *Fetcher) check(raw string) (*target, *Error) {
	fail := func(kind Kind, format string, args ...any) (*target, *Error) {
		return nil, &Error{Kind: kind, URL: printable(raw), message: fmt.Sprintf(format, args...)}
	}
	if len(f.hosts) == 0 {
		return fail(NotListed, "this server fetches no pictures; "+instead+" (the option --fetch-host lists hosts to fetch from)")
	}
	if len(raw) > maxURL {
		return fail(BadURL, "the URL has %d bytes, and the limit is %d", len(raw), maxURL)
	}
	for _, c := range []byte(raw) {
		if c <= ' ' || c > '~' {
			return fail(BadURL, "the URL contains a space, a control character or a character outside of ASCII; write these in percent-encoding (%%20), and host names in Punycode (xn--…)")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return fail(BadURL, "this is not a valid URL; want https://host/path")
	}
	if _, ok := ports[u.Scheme]; !ok {
		return fail(BadURL, "only http and https URLs are fetched")
	}
	if u.User != nil {
		return fail(BadURL, "the URL contains a user name (before @); only pictures that need no login are fetched")
	}
	if u.Opaque != "" || u.Host == "" {
		return fail(BadURL, "the URL has no host; want %s://host/path", u.Scheme)
	}
	t := &target{port: ports[u.Scheme]}
	bracket := strings.HasPrefix(u.Host, "[")
	if t.host, t.addr, err = normalize(u.Hostname(), bracket); err != nil {
		return fail(BadURL, "%v", err)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return fail(BadURL, "the port is not a number from 1 to 65535")
		}
		t.port = uint16(n)
	}
	listed := false
	for _, e := range f.hosts {
		listed = listed || e.matches(t.host, t.port, u.Scheme)
	}
	host := t.host
	if bracket {
		host = "[" + host + "]"
	}
	if t.port != ports[u.Scheme] {
		host = fmt.Sprintf("%s:%d", host, t.port)
	}
	if !listed {
		return fail(NotListed, "this server fetches pictures only from hosts that its operator lists, and %s is not listed; "+instead+" (--fetch-host adds a host)", host)
	}
	if t.addr.IsValid() && !public(t.addr) {
		return fail(NotPublic, "%s is not an address on the public internet; "+instead, host)
	}
	t.url = &url.URL{Scheme: u.Scheme, Host: host, Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}
	return t, nil
}
