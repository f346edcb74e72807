package fetch

import (
	"fmt"
	"net/netip"
)

// Addresses of the special-purpose registries of IANA that are not for hosts on the
// public internet, and the address of Azure's metadata service, which looks public.
var refused4 = prefixes(
	"0.0.0.0/8",        // this network
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // carrier-grade NAT
	"127.0.0.0/8",      // loopback
	"168.63.129.16/32", // Azure's metadata service
	"169.254.0.0/16",   // link-local, with the metadata services of most clouds
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocol assignments
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // relays of 6to4
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarking
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved, and broadcast
)

// Of IPv6, only this block is given to public hosts. Loopback, IPv4-mapped and
// IPv4-compatible addresses, NAT64 (64:ff9b::/96), unique local, link-local,
// site-local and multicast addresses lie outside of it.
var public6 = netip.MustParsePrefix("2000::/3")

var refused6 = prefixes(
	"2001::/23",     // protocol assignments: Teredo, benchmarking, ORCHID
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4, which contains an IPv4 address
	"3fff::/20",     // documentation
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		list[i] = netip.MustParsePrefix(s)
	}
	return list
}

// public reports whether an address is one of a host on the public internet.
func public(a netip.Addr) bool {
	refused := refused4
	if !a.Is4() {
		if !public6.Contains(a) { // also false for an address with a zone
			return false
		}
		refused = refused6
	}
	for _, p := range refused {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsValid()
}

// private is the error of the last check, when the kernel is about to connect.
type private struct{ address string }

func (p private) Error() string { return fmt.Sprintf("%s is not a public address", p.address) }
