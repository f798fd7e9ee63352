package main

import (
	"time"

	"github.com/prometheus/procfs"
)

// processes are those of a target. They count while the load is on it.
type processes struct {
	pids       []int
	start, cpu time.Duration
	// memory is the largest RssAnon at the end of a turn, in bytes.
	memory uint64
}

func (p *processes) begin() (err error) {
	p.start, _, err = p.read()
	return err
}

func (p *processes) end() error {
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
