package verification

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// accountsKept is how many accounts are remembered; one that is forgotten is full again.
const accountsKept = 4096

// accounts bounds the CPU time that is spent for each of those who write.
type accounts struct {
	perMinute time.Duration
	mu        sync.Mutex
	limiters  *lru.Cache[string, *rate.Limiter] // in microseconds
}

func newAccounts(perMinute time.Duration) *accounts {
	limiters, err := lru.New[string, *rate.Limiter](accountsKept)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &accounts{perMinute: perMinute, limiters: limiters}
}

func (a *accounts) of(name string) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	limiter, ok := a.limiters.Get(name)
	if !ok {
		budget := a.perMinute.Microseconds()
		limiter = rate.NewLimiter(rate.Limit(float64(budget)/time.Minute.Seconds()), int(budget))
		a.limiters.Add(name, limiter)
	}
	return limiter
}

// left returns the CPU time that is left for an account.
func (a *accounts) left(name string) time.Duration {
	return max(0, time.Duration(a.of(name).Tokens())*time.Microsecond)
}

// charge takes CPU time from an account, more than is left if need be.
func (a *accounts) charge(name string, spent time.Duration) {
	limiter := a.of(name)
	limiter.ReserveN(time.Now(), min(int(spent.Microseconds()), limiter.Burst()))
}
