// Package system tests Croft as its users meet it: the programs croft and
// croftd, with real containers, on a network of their own. The tests are behind
// the build tag system and need root.
package system
