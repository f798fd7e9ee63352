package verification

import (
	"strconv"
	"testing"
	"time"
)

// TestAccounts: the cost of one account is not another's, and is forgotten with time.
func TestAccounts(t *testing.T) {
	a := newAccounts(time.Second)
	if left := a.left("a"); left != time.Second {
		t.Errorf("%v at the beginning", left)
	}
	a.charge("a", 400*time.Millisecond)
	if left := a.left("a"); left < 600*time.Millisecond || left > 900*time.Millisecond {
		t.Errorf("%v after 400 ms", left)
	}
	a.charge("a", time.Hour) // more than there ever is: a minute's worth is taken
	if left := a.left("a"); left != 0 {
		t.Errorf("%v after an hour", left)
	}
	if left := a.left("b"); left != time.Second {
		t.Errorf("%v for another", left)
	}
	for i := range accountsKept {
		a.charge(strconv.Itoa(i), time.Millisecond)
	}
	if n := a.limiters.Len(); n != accountsKept {
		t.Errorf("%d accounts are kept", n)
	}
}
