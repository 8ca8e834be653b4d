//go:build system
package image
import ("testing";"os";"strings")
func TestZZ(t *testing.T){ for _, n := range strings.Fields(os.Getenv("ZZ")) { t.Run(n, func(t *testing.T){ info, root := buildAndUnpack(t, n); t.Log(info.Metadata.Properties, root) }) } }
