package fetch

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestPublic(t *testing.T) {
	for _, s := range []string{
		// IPv4: both ends of each block, as far as they are not those of a neighbour.
		"0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255",
		"127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.0", "169.254.169.254", "169.254.255.255",
		"172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.0", "192.168.255.255",
		"198.18.0.0", "198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		// IPv6
		"::", "::1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8",
		"64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "100:0:0:1::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
		"febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1", "1fff:ffff::1", "4000::1",
		"2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::1",
		"2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "3fff:fff:ffff::1", "2606:2800::1%eth0",
	} {
		if public(netip.MustParseAddr(s)) {
			t.Errorf("%s counts as public", s)
		}
	}
	for _, s := range []string{
		"1.0.0.0", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.215.14", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
		"168.63.129.15", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0",
		"198.17.255.255", "198.20.0.0", "223.255.255.255",
		"2000::1", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:2800:21f::1", "2a00:1450::1", "3ffe:ffff::1",
	} {
		if !public(netip.MustParseAddr(s)) {
			t.Errorf("%s does not count as public", s)
		}
	}
	if public(netip.Addr{}) {
		t.Error("the zero Addr counts as public")
	}
}

// TestDial: the real dialer refuses a private address by itself, though a server
// listens there.
func TestDial(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Log(err) // there may be no IPv6
			continue
		}
		defer l.Close()
		conn, err := dial(t.Context(), netip.MustParseAddrPort(l.Addr().String()))
		if !errors.As(err, new(private)) {
			t.Errorf("dialing %v: connection %v, error %v; want a refusal", l.Addr(), conn, err)
		}
	}
}

// TestDialRefuses: if the check of a resolved address were missing, the dialer's
// would make the same error of it.
func TestDialRefuses(t *testing.T) {
	f, err := New(Options{Hosts: []string{"good.example"}, MaxBytes: 1, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	target, bad := f.check("http://good.example/")
	if bad != nil {
		t.Fatal(bad)
	}
	target.addr = netip.MustParseAddr("93.184.215.14") // checked instead of the one below
	f.dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return dial(ctx, netip.MustParseAddrPort("127.0.0.1:80"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, bad := f.get(ctx, target); bad == nil || bad.Kind != NotPublic {
		t.Errorf("%v, want %s", bad, NotPublic)
	}
}
