package model

import "github.com/croft-project/croft/api"

// Phase tells how far the making or unmaking of an object has come. A crash at
// any line leaves a phase that start-up can finish or undo.
type Phase string

// The phases. Creating is undone at start-up, Deleting and Renaming are
// finished.
const (
	Creating Phase = "creating"
	Ready    Phase = "ready"
	Renaming Phase = "renaming"
	Deleting Phase = "deleting"
)

// Action is what moves an object from one phase to another.
type Action string

// The actions.
const (
	Finish Action = "finish" // what the phase began is done
	Rename Action = "rename"
	Delete Action = "delete"
)

var next = map[Phase]map[Action]Phase{
	Creating: {Finish: Ready, Delete: Deleting},
	Ready:    {Rename: Renaming, Delete: Deleting},
	Renaming: {Finish: Ready},
	Deleting: {Delete: Deleting}, // a second attempt after a failed one
}

// Next is the phase after an action, or BadState naming both.
func (p Phase) Next(a Action) (Phase, error) {
	if to, ok := next[p][a]; ok {
		return to, nil
	}
	return p, api.Errorf(api.BadState, "cannot %s an object that is in phase %s", a, p)
}
