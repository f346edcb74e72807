package fetch

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
)

func newFetcher(t testing.TB, hosts ...string) *Fetcher {
	t.Helper()
	f, err := New(Options{Hosts: hosts, MaxBytes: 1 << 20, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestHosts(t *testing.T) {
	for s, want := range map[string]entry{
		"example.org":          {"example.org", false, 0},
		"Example.ORG.":         {"example.org", false, 0},
		"*.example.org":        {"example.org", true, 0},
		"*.example.org.:8443":  {"example.org", true, 8443},
		"example.org:443":      {"example.org", false, 443},
		"my_bucket.s3.example": {"my_bucket.s3.example", false, 0},
		"xn--bcher-kva.example": {
			"xn--bcher-kva.example", false, 0},
		"intranet":             {"intranet", false, 0}, // whether its address is public shows when it is resolved
		"93.184.215.14":        {"93.184.215.14", false, 0},
		"93.184.215.14:81":     {"93.184.215.14", false, 81},
		"[2606:2800:021F::1]":  {"2606:2800:21f::1", false, 0},
		"[2606:2800::1]:65535": {"2606:2800::1", false, 65535},
	} {
		if e, err := parseEntry(s); err != nil || e != want {
			t.Errorf("%s: %+v, %v, want %+v", s, e, err, want)
		}
	}
	for s, want := range map[string]string{
		"":                              "the host is missing",
		".":                             "the host is missing",
		"..":                            "part of the host name is empty",
		"a..example":                    "part of the host name is empty",
		"https://example.org":           "no other part of a URL",
		"example.org/photos":            "no other part of a URL",
		"user@example.org":              "no other part of a URL",
		"*":                             "stands only for all subdomains",
		"*.":                            "the host is missing",
		"a.*.org":                       "stands only for all subdomains",
		"*.*.example.org":               "stands only for all subdomains",
		"*example.org":                  "stands only for all subdomains",
		"*.org":                         "whole top-level domain",
		"*.93.184.215.14":               "an address has no subdomains",
		"*.14":                          "ends in a number",
		"example.org:":                  "number from 1 to 65535",
		"example.org:0":                 "number from 1 to 65535",
		"example.org:65536":             "number from 1 to 65535",
		"example.org:http":              "number from 1 to 65535",
		"2606:2800::1":                  "in brackets: [2606:2800::1]",
		"[2606:2800::1":                 "want a host, or host:port",
		"[example.org]":                 "not an IPv6 address",
		"[fe80::1%eth0]":                "not an IPv6 address",
		"bücher.example":                "Punycode",
		"exa mple.org":                  "Punycode",
		"localhost":                     "public addresses only",
		"Localhost.:80":                 "public addresses only",
		"a.localhost":                   "public addresses only",
		"127.0.0.1":                     "public addresses only",
		"169.254.169.254":               "public addresses only",
		"[::1]:8080":                    "public addresses only",
		"[::ffff:8.8.8.8]":              "public addresses only",
		"127.1":                         "ends in a number",
		"2130706433":                    "ends in a number",
		"0177.0.0.1":                    "ends in a number",
		"0x7f.1":                        "ends in a number",
		"0x7f000001":                    "ends in a number",
		"1.2.3.4.":                      "ends in a number",
		"1.2.3.4.5":                     "ends in a number",
		strings.Repeat("a", 64):         "longer than 63",
		strings.Repeat("a.", 127) + "a": "longer than 253",
	} {
		_, err := New(Options{Hosts: []string{"example.org", s}, MaxBytes: 1, Timeout: 1})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "--fetch-host ") {
			t.Errorf("--fetch-host %s: %v, want %q", s, err, want)
		}
	}
	for _, o := range []Options{{MaxBytes: 0, Timeout: 1}, {MaxBytes: 1, Timeout: 0}, {MaxBytes: -1, Timeout: 1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

var listed = []string{"good.example", "*.wide.example", "ported.example:8443", "both.example", "both.example:8080", "93.184.215.14", "[2606:2800::1]"}

func TestCheck(t *testing.T) {
	f := newFetcher(t, listed...)
	for raw, want := range map[string]string{
		"http://good.example":                       "http://good.example",
		"HTTPS://GOOD.Example./A.png?X=y#part":      "https://good.example/A.png?X=y",
		"http://good.example:80/a%2fb":              "http://good.example/a%2fb",
		"http://good.example:0080/":                 "http://good.example/",
		"http://good.example:/":                     "http://good.example/",
		"https://good.example:443/@user/a.png":      "https://good.example/@user/a.png",
		"https://good.example?":                     "https://good.example",
		"https://good.example/a?u=http://b@c":       "https://good.example/a?u=http://b@c",
		"https://a.wide.example/":                   "https://a.wide.example/",
		"https://a.b.Wide.example./":                "https://a.b.wide.example/",
		"https://ported.example:8443/":              "https://ported.example:8443/",
		"http://ported.example:8443/":               "http://ported.example:8443/",
		"http://both.example:8080/":                 "http://both.example:8080/",
		"http://both.example/":                      "http://both.example/",
		"http://93.184.215.14/":                     "http://93.184.215.14/",
		"http://[2606:2800:0::1]/":                  "http://[2606:2800::1]/",
		"https://[2606:2800:0:0:0:0:0:1]:443/a.png": "https://[2606:2800::1]/a.png",
	} {
		target, bad := f.check(raw)
		if bad != nil {
			t.Errorf("%s: %v", raw, bad)
		} else if got := target.url.String(); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
	for raw, want := range map[string]Kind{
		"":                                                   BadURL,
		"good.example/a.png":                                 BadURL,
		"//good.example/a.png":                               BadURL,
		"file:///etc/passwd":                                 BadURL,
		"file://good.example/etc/passwd":                     BadURL,
		"ftp://good.example/a.png":                           BadURL,
		"gopher://good.example/":                             BadURL,
		"data:image/png;base64,AAAA":                         BadURL,
		"http:good.example":                                  BadURL,
		"http:/good.example":                                 BadURL,
		"http:///good.example":                               BadURL,
		"http://":                                            BadURL,
		"http://:80/":                                        BadURL,
		"http://./":                                          BadURL,
		"http://good.example../":                             BadURL,
		"http://.good.example/":                              BadURL,
		"http://good.example:65536/":                         BadURL,
		"http://good.example:0/":                             BadURL,
		"http://good.example:http/":                          BadURL,
		"http://good.example:80:80/":                         BadURL,
		"http://user@good.example/":                          BadURL,
		"http://user:password@good.example/":                 BadURL,
		"http://@good.example/":                              BadURL,
		"http://good.example@127.0.0.1/":                     BadURL,
		"http://good.example:80@127.0.0.1/":                  BadURL,
		"http://good.example%40127.0.0.1/":                   BadURL,
		`http://good.example\@127.0.0.1/`:                    BadURL,
		`http://127.0.0.1\@good.example/`:                    BadURL,
		"http://good.example#@127.0.0.1/":                    "", // as browsers read it: the rest is a fragment
		"http://127.0.0.1#@good.example/":                    NotListed,
		"http://127.0.0.1?@good.example/":                    NotListed,
		"http://127.0.0.1/@good.example/":                    NotListed,
		"http://good.example /":                              BadURL,
		" http://good.example/":                              BadURL,
		"http://good.example/a b.png":                        BadURL,
		"http://good.example/?a b":                           BadURL,
		"http://good.example/\r\nHost: b":                    BadURL,
		"http://good.example/\x00":                           BadURL,
		"http://good.example/ü.png":                          BadURL,
		"http://gööd.example/":                               BadURL,
		"http://xn--gd-fkaa.example/":                        NotListed,
		"http://good。example/":                               BadURL, // an ideographic full stop, which IDNA maps to a dot
		"http://①②⑦.⓪.⓪.①/":                                  BadURL, // digits in circles, which IDNA maps to 127.0.0.1
		"http://good.examp%6ce/":                             BadURL,
		"http://127.1/":                                      BadURL,
		"http://127.0.1/":                                    BadURL,
		"http://2130706433/":                                 BadURL,
		"http://0177.0.0.1/":                                 BadURL,
		"http://017700000001/":                               BadURL,
		"http://0x7f.0.0.1/":                                 BadURL,
		"http://0x7f000001/":                                 BadURL,
		"http://0X7F000001/":                                 BadURL,
		"http://127.0.0.0x1/":                                BadURL,
		"http://127.0.0.1./":                                 BadURL,
		"http://93.184.215.014/":                             BadURL,
		"http://0.0.0.0/":                                    NotListed,
		"http://127.0.0.1/":                                  NotListed,
		"http://localhost/":                                  NotListed,
		"http://localhost./":                                 NotListed,
		"http://LOCALHOST/":                                  NotListed,
		"http://[::1]/":                                      NotListed,
		"http://[::]/":                                       NotListed,
		"http://[::ffff:127.0.0.1]/":                         NotListed,
		"http://[::ffff:93.184.215.14]/":                     NotListed,
		"http://[::127.0.0.1]/":                              NotListed,
		"http://[fe80::1%25eth0]/":                           BadURL,
		"http://[2606:2800::1%25eth0]/":                      BadURL,
		"http://[good.example]/":                             BadURL,
		"http://[93.184.215.14]/":                            BadURL,
		"http://2606:2800::1/":                               BadURL,
		"http://[2606:2800::1/":                              BadURL,
		"http://wide.example/":                               NotListed,
		"http://awide.example/":                              NotListed,
		"http://a.wide.example.evil/":                        NotListed,
		"http://good.example.evil/":                          NotListed,
		"http://a.good.example/":                             NotListed,
		"http://example/":                                    NotListed,
		"http://good.example:8080/":                          NotListed,
		"http://good.example:443/":                           NotListed, // the default of https
		"https://good.example:80/":                           NotListed,
		"https://ported.example/":                            NotListed,
		"https://ported.example:443/":                        NotListed,
		"http://both.example:8081/":                          NotListed,
		"http://93.184.215.14:22/":                           NotListed,
		"http://good.example/" + strings.Repeat("a", maxURL): BadURL,
	} {
		_, bad := f.check(raw)
		switch {
		case bad == nil && want != "":
			t.Errorf("%s was accepted", raw)
		case bad != nil && bad.Kind != want:
			t.Errorf("%s: %s (%v), want %s", raw, bad.Kind, bad, want)
		}
	}
	// An address that is both listed and private: New does not let it into the list.
	f.hosts = append(f.hosts, entry{"127.0.0.1", false, 0}, entry{"::1", false, 0})
	for _, raw := range []string{"http://127.0.0.1/", "http://[::1]/"} {
		if _, bad := f.check(raw); bad == nil || bad.Kind != NotPublic {
			t.Errorf("%s: %v, want %s", raw, bad, NotPublic)
		}
	}
	none := newFetcher(t)
	for _, raw := range []string{"http://good.example/", "", "file:///etc/passwd"} {
		if _, err := none.Get(t.Context(), raw); err == nil || !strings.Contains(err.Error(), "fetches no pictures") || err.(*Error).Kind != NotListed {
			t.Errorf("%s with nothing listed: %v", raw, err)
		}
	}
}

func TestErrorText(t *testing.T) {
	f := newFetcher(t, listed...)
	for raw, want := range map[string]string{
		"https://evil.example/a.png?key=SECRET#SECRET": "cannot fetch https://evil.example/a.png: this server fetches pictures only from hosts that its operator lists, " +
			"and evil.example is not listed; send the picture itself, as a data URI (--fetch-host adds a host)",
		"https://evil.example:81/":           "cannot fetch https://evil.example:81/: this server fetches pictures only from hosts that its operator lists, and evil.example:81 is not listed",
		"http://user:SECRET@good.example/a":  "cannot fetch http://good.example/a: the URL contains a user name",
		"ftp://user:SECRET@good.example/a":   "cannot fetch ftp://good.example/a: only http and https URLs are fetched",
		"http://user:SEC RET@good.example/a": "cannot fetch …good.example/a: the URL contains a space",
		"http://a/\x1b[31mred\u202e":         "cannot fetch http://a/\ufffd[31mred\ufffd: the URL contains a space, a control character",
		"":                                   `cannot fetch "": only http and https URLs are fetched`,
		"data:image/png;base64," + strings.Repeat("A", maxURL): "cannot fetch data:image/png;base64," + strings.Repeat("A", 178) + "…: the URL has 8214 bytes, and the limit is 8192",
	} {
		_, bad := f.check(raw)
		if bad == nil || !strings.HasPrefix(bad.Error(), want) || strings.Contains(bad.Error(), "SECRET") {
			t.Errorf("%q: %v\nwant %s", raw, bad, want)
		}
	}
}

// TestStatus: no status makes a client try again by itself, and each is a 4xx.
func TestStatus(t *testing.T) {
	for kind, want := range map[Kind]int{BadURL: 400, NotListed: 403, NotPublic: 403, TooLarge: 413, NotFound: 422, Unavailable: 424} {
		if got := kind.Status(); got != want {
			t.Errorf("%s: status %d, want %d", kind, got, want)
		}
	}
}

// FuzzCheck: whatever passes goes to a listed host and port that is not private, and
// the request that is sent says so; no text shows what may be secret.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"http://good.example/a.png?x=y#z", "https://a.wide.example:443/%2e%2e/", "https://ported.example:8443", "http://[2606:2800::1]/", "http://93.184.215.14/a",
		"http://good.example@127.0.0.1/", `http://good.example\@127.0.0.1/`, "http://[::ffff:127.0.0.1]:80/", "http://0177.1/", "http://GOOD.example.:0080/?a b", "http:good.example", "file:///etc/passwd", "//x", "http://a:b"} {
		f.Add(s)
	}
	fetcher := newFetcher(f, listed...)
	f.Fuzz(func(t *testing.T, raw string) {
		target, bad := fetcher.check(raw)
		if bad != nil {
			text := bad.Error()
			if target != nil || bad.Kind == "" || bad.URL == "" {
				t.Fatalf("%q: a result beside the error %+v", raw, bad)
			}
			if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) >= 0 || len(text) > 2000 {
				t.Fatalf("%q: text %q", raw, text)
			}
		} else {
			u := target.url
			if u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
				t.Fatalf("%q gave %#v", raw, u)
			}
			port := map[string]uint16{"http": 80, "https": 443}[u.Scheme]
			switch h := target.host; {
			case h == "good.example", h == "both.example", h == "93.184.215.14", h == "2606:2800::1", strings.HasSuffix(h, ".wide.example") && !strings.HasPrefix(h, "."):
				if target.port != port && (h != "both.example" || target.port != 8080) {
					t.Fatalf("%q: port %d of %s", raw, target.port, h)
				}
			case h == "ported.example" && target.port == 8443:
			default:
				t.Fatalf("%q: host %q, port %d", raw, h, target.port)
			}
			if a, err := netip.ParseAddr(u.Hostname()); (err == nil) != target.addr.IsValid() || err == nil && (a != target.addr || !public(a)) {
				t.Fatalf("%q: host %s, address %v", raw, u.Host, target.addr)
			}
			// The text that goes out is read as the same URL, by us and by net/url.
			again, bad := fetcher.check(u.String())
			if bad != nil || again.url.String() != u.String() || again.host != target.host || again.port != target.port {
				t.Fatalf("%q became %s, which became %+v, %v", raw, u, again, bad)
			}
			if parsed, err := url.Parse(raw); err != nil || !strings.EqualFold(strings.TrimSuffix(parsed.Hostname(), "."), target.host) && !target.addr.IsValid() {
				t.Fatalf("%q has host %q, not %q", raw, parsed.Hostname(), target.host)
			}
			var sent strings.Builder
			if err := (&http.Request{Method: "GET", URL: u, Host: u.Host}).Write(&sent); err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			lines := strings.Split(sent.String(), "\r\n")
			if len(lines) != 5 || strings.Count(lines[0], " ") != 2 || lines[1] != "Host: "+u.Host || strings.Count(sent.String(), "\n") != 4 {
				t.Fatalf("%q sends %q", raw, sent.String())
			}
		}
		for _, secret := range []string{raw + "?key=SECRET", raw + "#SECRET", "http://user:SECRET@" + raw, "http://SECRET@" + raw} {
			if strings.Contains(raw, "SECRET") {
				break
			}
			if text := printable(secret); strings.Contains(text, "SECRET") {
				t.Fatalf("%q is shown as %q", secret, text)
			}
		}
	})
}
