module tools/toxiproxy

go 1.26.0

require github.com/Shopify/toxiproxy/v2 v2.12.0
