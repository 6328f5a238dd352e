package storage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

const component = "storage-provisioner"

// Main runs "storage-provisioner --kubeconfig FILE --node-name NAME --root FOLDER" until SIGTERM or SIGINT.
func Main() int {
	flags := flag.NewFlagSet(component, flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server (required)")
	node := flags.String("node-name", "", "the node whose folders become volumes (required)")
	root := flags.String("root", "", "the folder that holds them, an absolute path (required)")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return 2
	}
	if *kubeconfig == "" || *node == "" || !filepath.IsAbs(*root) || flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "%s: usage: %s --kubeconfig FILE --node-name NAME --root FOLDER\n", component, component)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *kubeconfig, *node, filepath.Clean(*root)); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", component, err)
		return 1
	}
	return 0
}

func run(ctx context.Context, kubeconfig, node, root string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = component
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.QPS, config.Burst = 50, 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	folders, err := openFolders(root)
	if err != nil {
		return err
	}
	if err := awaitServer(ctx, client); err != nil {
		return ignoreEnd(ctx, err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	defer broadcaster.Shutdown()
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component, Host: node})
	c, err := newController(client, recorder, node, folders)
	if err != nil {
		return err
	}
	return ignoreEnd(ctx, c.run(ctx))
}

// awaitServer returns when the API server lets us read what we watch. Server and rights come into being at the same time as
// this program, and asking often here beats the informers' growing pauses.
func awaitServer(ctx context.Context, client kubernetes.Interface) error {
	tick := time.NewTicker(shortestRetry)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		err := readable(ctx, client)
		if err == nil {
			return nil
		}
		if tries%40 == 0 {
			klog.InfoS("Waiting for the API server", "cause", err.Error())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func readable(ctx context.Context, client kubernetes.Interface) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	one := metav1.ListOptions{Limit: 1}
	_, classes := client.StorageV1().StorageClasses().List(ctx, one)
	if classes != nil {
		return classes
	}
	_, volumes := client.CoreV1().PersistentVolumes().List(ctx, one)
	_, claims := client.CoreV1().PersistentVolumeClaims(metav1.NamespaceAll).List(ctx, one)
	return errors.Join(volumes, claims)
}

// ignoreEnd drops the error of a run that was told to end.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
