package lxc

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostNames(t *testing.T) {
	conf, err := Render(Spec{Name: "c1", Nics: []Nic{
		{Name: "eth0", HostName: "veth1", MAC: "00:16:3e:00:00:01", Parent: "br0"},
		{Name: "lan.1", HostName: "veth2", MAC: "00:16:3e:00:00:02"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"eth0": "veth1", "lan.1": "veth2"}
	if diff := cmp.Diff(want, HostNames(conf)); diff != "" {
		t.Error(diff)
	}
	if got := HostNames("lxc.net.0.type = empty\nlxc.net.1.name = eth0\nnonsense\n"); len(got) != 0 {
		t.Errorf("got %v out of nothing", got)
	}
}
