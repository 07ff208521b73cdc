//! Where notifications may go: a name is resolved, every address is checked, and only what was checked is connected to.
//!
//! Whoever configures a sink may not be who runs this machine's network, and a name can mean another address by the time
//! it is used (rebinding). So the check stands in the resolver that the connection itself uses; there is no second look-up.

use std::{
    error, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use crate::config::Reach;

/// Why an address is refused, in words that follow "is"; none for one of the public internet.
///
/// After the special-purpose registries of IANA (RFC 6890 and its followers). Ways to write an IPv4 address as an IPv6
/// one are refused whole, whatever address is inside: relays and translators may stand anywhere.
pub(crate) fn refused_address(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => V4.iter().find(|net| net.holds(ip)).map(|net| net.what),
        IpAddr::V6(ip) => match V6.iter().find(|net| net.holds(ip)) {
            Some(net) => Some(net.what),
            // All that is handed out for use on the internet (RFC 4291, RFC 3587).
            None => (ip.segments()[0] & 0xe000 != 0x2000).then_some("no address of the public internet"),
        },
    }
}

struct Net<A> {
    base: A,
    bits: u32,
    what: &'static str,
}

const fn v4(a: u8, b: u8, c: u8, bits: u32, what: &'static str) -> Net<Ipv4Addr> {
    Net { base: Ipv4Addr::new(a, b, c, 0), bits, what }
}

const fn v6(a: u16, b: u16, c: u16, bits: u32, what: &'static str) -> Net<Ipv6Addr> {
    Net { base: Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), bits, what }
}

const PRIVATE: &str = "an address of a private network";
const LOOPBACK: &str = "this machine";
const LINK: &str = "an address of the local link (the metadata service of clouds, too)";
const SPECIAL: &str = "an address for special purposes";
const MULTICAST: &str = "a multicast address";
const EMBEDDED: &str = "an IPv4 address written as an IPv6 one";

const V4: [Net<Ipv4Addr>; 16] = [
    v4(0, 0, 0, 8, LOOPBACK),
    v4(10, 0, 0, 8, PRIVATE),
    v4(100, 64, 0, 10, "an address behind a carrier's NAT"),
    v4(127, 0, 0, 8, LOOPBACK),
    v4(169, 254, 0, 16, LINK),
    v4(172, 16, 0, 12, PRIVATE),
    v4(192, 0, 0, 24, SPECIAL),
    v4(192, 0, 2, 24, SPECIAL),
    v4(192, 31, 196, 24, SPECIAL),
    v4(192, 88, 99, 24, SPECIAL),
    v4(192, 168, 0, 16, PRIVATE),
    v4(198, 18, 0, 15, SPECIAL),
    v4(198, 51, 100, 24, SPECIAL),
    v4(203, 0, 113, 24, SPECIAL),
    v4(224, 0, 0, 4, MULTICAST),
    v4(240, 0, 0, 4, SPECIAL),
];

const V6: [Net<Ipv6Addr>; 13] = [
    Net { base: Ipv6Addr::LOCALHOST, bits: 128, what: LOOPBACK },
    Net { base: Ipv6Addr::UNSPECIFIED, bits: 128, what: LOOPBACK },
    // The first 96 bits are zero, or zero and then ffff: compatible and mapped.
    v6(0, 0, 0, 64, EMBEDDED),
    v6(0x64, 0xff9b, 0, 32, EMBEDDED),
    v6(0x2001, 0, 0, 23, SPECIAL),
    v6(0x2001, 0xdb8, 0, 32, SPECIAL),
    v6(0x2002, 0, 0, 16, EMBEDDED),
    v6(0x2620, 0x4f, 0x8000, 48, SPECIAL),
    v6(0x3fff, 0, 0, 20, SPECIAL),
    v6(0xfc00, 0, 0, 7, PRIVATE),
    v6(0xfe80, 0, 0, 10, LINK),
    v6(0xfec0, 0, 0, 10, PRIVATE),
    v6(0xff00, 0, 0, 8, MULTICAST),
];

impl Net<Ipv4Addr> {
    fn holds(&self, ip: Ipv4Addr) -> bool {
        (self.base.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits
    }
}

impl Net<Ipv6Addr> {
    fn holds(&self, ip: Ipv6Addr) -> bool {
        (self.base.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits
    }
}

/// That something is not sent, because of where it would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Refused {}

fn refused(host: &str, why: &str) -> Refused {
    Refused(format!("{host} is {why}, where notifications do not go unless allow_private = true"))
}

/// Checks what needs no resolver: scheme, and an address in the place of a name. Connections to those ask no resolver.
///
/// # Errors
/// Why nothing is sent there.
pub(super) fn check_url(url: &Url, reach: Reach) -> Result<(), Refused> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match (url.scheme(), reach) {
        ("https", _) | ("http", Reach::Any) => {}
        ("http", Reach::Public) => {
            return Err(Refused("http is not used unless allow_private = true".into()));
        }
        (other, _) => return Err(Refused(format!("`{other}:` is not a way to tell somebody"))),
    }
    match host.parse::<IpAddr>().ok().and_then(refused_address) {
        Some(why) if reach == Reach::Public => Err(refused(host, why)),
        _ => Ok(()),
    }
}

/// Finds the addresses of a name.
pub(crate) trait LookUp: Send + Sync + 'static {
    /// # Errors
    /// Where the name has none.
    fn look_up(&self, name: String) -> Found;
}

/// What a look-up comes to.
pub(crate) type Found = Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

/// The resolver of this machine.
pub(crate) struct System;

impl LookUp for System {
    fn look_up(&self, name: String) -> Found {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// Gives the addresses of a name only if all of them may be connected to.
pub(super) struct Resolver<L> {
    pub(super) look_up: Arc<L>,
    pub(super) reach: Reach,
}

impl<L: LookUp> Resolve for Resolver<L> {
    fn resolve(&self, name: Name) -> Resolving {
        let (look_up, reach) = (self.look_up.clone(), self.reach);
        Box::pin(async move {
            let found = look_up.look_up(name.as_str().to_owned()).await?;
            // One private address among public ones is no accident: which one is taken would be chance.
            let bad = found.iter().find_map(|address| refused_address(address.ip()));
            if let Some(why) = bad.filter(|_| reach == Reach::Public) {
                return Err(refused(name.as_str(), why).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, public: bool| {
            let ip: IpAddr = text.parse().expect(text);
            assert_eq!(refused_address(ip).is_none(), public, "{text}");
        };
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "172.15.255.255",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "223.255.255.255",
        ] {
            check(text, true);
        }
        for text in ["2606:4700::1111", "2a00:1450:4001:830::200e", "2003::1", "2001:200::1", "2400:cb00::1"]
        {
            check(text, true);
        }
        for text in [
            "169.254.169.254",
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            check(text, false);
        }
        for text in [
            "::",
            "::1",
            "::ffff:169.254.169.254",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:db8::1",
            "2001:10::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            check(text, false);
        }
    }

    #[test]
    fn addresses_in_every_notation_that_a_url_takes() {
        let check = |host: &str, allowed: bool| {
            let url = Url::parse(&format!("https://{host}/x")).expect(host);
            assert_eq!(check_url(&url, Reach::Public).is_ok(), allowed, "{host}: {url}");
            check_url(&url, Reach::Any).expect("allowed where it is meant");
        };
        for host in [
            "169.254.169.254",
            "169.254.169.254.",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "0xa9.0xfe.0xa9.0xfe",
            "169.254.43518",
            "169.16689662",
            "127.1",
            "0",
            "017700000001",
            "１２７.0.0.1",
            "%31%32%37.0.0.1",
            "[::1]",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
        ] {
            check(host, false);
        }
        // Names are the resolver's business.
        for host in ["example.com", "8.8.8.8", "[2606:4700::1111]", "localhost"] {
            check(host, true);
        }
        for text in ["http://example.com/", "ftp://example.com/"] {
            let url = Url::parse(text).expect(text);
            check_url(&url, Reach::Public).expect_err(text);
        }
    }

    /// Answers each question with the next list.
    struct Script(Mutex<Vec<Vec<&'static str>>>);

    impl LookUp for Script {
        fn look_up(&self, _: String) -> Found {
            let next = self.0.lock().expect("no panic").remove(0);
            let addresses = next.into_iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 0));
            let addresses: Vec<_> = addresses.collect();
            Box::pin(async { Ok(addresses) })
        }
    }

    async fn resolve(resolver: &Resolver<Script>) -> Result<Vec<IpAddr>, String> {
        let name = "rebind.example".parse().expect("a name");
        let found = resolver.resolve(name).await;
        found.map(|found| found.map(|address| address.ip()).collect()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_name_that_means_another_address_the_next_time_is_refused_then() {
        let answers =
            vec![vec!["8.8.8.8"], vec!["127.0.0.1"], vec!["8.8.8.8", "10.0.0.1"], vec!["::ffff:10.0.0.1"]];
        let look_up = Arc::new(Script(Mutex::new(answers)));
        let resolver = Resolver { look_up, reach: Reach::Public };
        assert_eq!(resolve(&resolver).await, Ok(vec!["8.8.8.8".parse().expect("an address")]));
        for _ in 0..3 {
            let error = resolve(&resolver).await.expect_err("private");
            assert!(error.contains("rebind.example is") && error.contains("allow_private"), "{error}");
        }
    }

    #[tokio::test]
    async fn private_addresses_are_reached_where_that_is_meant() {
        let look_up = Arc::new(Script(Mutex::new(vec![vec!["127.0.0.1"]])));
        resolve(&Resolver { look_up, reach: Reach::Any }).await.expect("allowed");
    }
}
