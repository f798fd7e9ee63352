// Command garbage-collector is kube-controller-manager's garbage collector by itself, built from the
// release that the tests pin: garbage-collector KUBECONFIG.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
)

const (
	workers = 5
	// discoveryPeriod is how often it looks for resources, which the controller manager does each 30 s.
	discoveryPeriod = time.Second
	syncTimeout     = 10 * time.Second
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: garbage-collector KUBECONFIG")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	typed, partial := informers.NewSharedInformerFactory(client, 0), metadatainformer.NewSharedInformerFactory(objects, 0)
	started := make(chan struct{})
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, objects, mapper, garbagecollector.DefaultIgnoredResources(),
		informerfactory.NewInformerFactory(typed, partial), started)
	if err != nil {
		return err
	}
	typed.Start(ctx.Done())
	partial.Start(ctx.Done())
	close(started)
	go collector.Sync(ctx, client.Discovery(), discoveryPeriod)
	collector.Run(ctx, workers, syncTimeout)
	return nil
}
