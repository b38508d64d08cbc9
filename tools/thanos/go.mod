module tools/thanos

go 1.26.0

// Thanos itself asks for a version that is not served any more.
require capnproto.org/go/capnp/v3 v3.1.0-alpha.1

require github.com/thanos-io/thanos v0.38.0

// As in its own go.mod, whose replacements count only there.
replace (
	github.com/bradfitz/gomemcache => github.com/themihai/gomemcache v0.0.0-20180902122335-24332e2d58ab
	github.com/sercand/kuberesolver/v4 => github.com/sercand/kuberesolver/v5 v5.1.1
	github.com/vimeo/galaxycache => github.com/thanos-community/galaxycache v0.0.0-20211122094458-3a32041a1f1e
	google.golang.org/grpc => google.golang.org/grpc v1.63.2
	gopkg.in/alecthomas/kingpin.v2 => github.com/alecthomas/kingpin v1.3.8-0.20210301060133-17f40c25f497
)
