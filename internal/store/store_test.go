package store

import "testing"

func TestDescribe(t *testing.T) {
	for key, want := range map[string]string{
		"instance/default/c1":       "instance c1",
		"instance/web/c1":           "instance c1 in project web",
		"local/instance/default/c1": "instance c1",
		"storage-pool/default":      "storage pool default",
		"image/default/abc":         "image abc",
		"volume/default/pool/vol":   "volume pool/vol",
		"config":                    "config",
	} {
		if got := Describe(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}
