package bridge

import "slices"

// ConfigKeys is every key of config.yaml, for the test that holds config.example.yaml complete.
func ConfigKeys() (keys []string) {
	for _, section := range configKeys {
		keys = append(keys, section...)
	}
	return slices.Compact(slices.Sorted(slices.Values(keys)))
}

// NewServer is the server of each listener.
var NewServer = newServer
