package main

import (
	"sync"
	"time"

	"github.com/prometheus/procfs"
)

// samplePeriod is how often the memory of processes is looked at.
const samplePeriod = 100 * time.Millisecond

// processes are those of a target. They count while the load is on it.
type processes struct {
	pids       []int
	start, cpu time.Duration
	// memory is the largest RssAnon that was seen, in bytes.
	memory   uint64
	sampling sync.WaitGroup
	stop     chan struct{}
}

func (p *processes) begin() (err error) {
	if p.start, _, err = p.read(); err != nil {
		return err
	}
	p.stop = make(chan struct{})
	p.sampling.Go(func() {
		for {
			select {
			case <-p.stop:
				return
			case <-time.After(samplePeriod):
				if _, memory, err := p.read(); err == nil { // end says so otherwise
					p.memory = max(p.memory, memory)
				}
			}
		}
	})
	return nil
}

func (p *processes) end() error {
	close(p.stop)
	p.sampling.Wait()
	cpu, memory, err := p.read()
	p.cpu += cpu - p.start
	p.memory = max(p.memory, memory)
	return err
}

// read returns the CPU time of all processes since they started, and their memory.
func (p *processes) read() (cpu time.Duration, memory uint64, err error) {
	for _, pid := range p.pids {
		process, err := procfs.NewProc(pid)
		if err != nil {
			return 0, 0, err
		}
		stat, err := process.Stat()
		if err != nil {
			return 0, 0, err
		}
		status, err := process.NewStatus()
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(stat.CPUTime() * float64(time.Second))
		memory += status.RssAnon
	}
	return cpu, memory, nil
}
