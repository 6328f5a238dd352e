// Package storage serves StorageClasses whose provisioner is groundwork.platform/local: each claim gets a folder of the
// node that the provisioner runs on, as a volume of type local.
//
// It keeps nothing in memory that the API does not hold: what has to be done follows from the claims and volumes that are
// there, each step can be repeated, and an interrupted one is finished by the next run.
package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"
)

const (
	// Provisioner is the name that StorageClasses give.
	Provisioner = "groundwork.platform/local"
	// NodeAnnotation on a volume names the node whose provisioner made it, and which alone may remove its folder.
	NodeAnnotation = "groundwork.platform/node"

	// finalizer keeps a volume's object until its folder is gone, even when the object is deleted before the claim. It is
	// the one that other provisioners use, so that tools which know it know ours.
	finalizer = storagehelpers.PVDeletionProtectionFinalizer

	workers       = 4
	shortestRetry = 250 * time.Millisecond
	longestRetry  = 30 * time.Second
	sweepInterval = 10 * time.Minute
)

// Reasons of events, as other provisioners have them.
const (
	reasonProvisioned     = "ProvisioningSucceeded"
	reasonProvisionFailed = "ProvisioningFailed"
	reasonGrown           = "VolumeResizeSuccessful"
	reasonGrowFailed      = "VolumeResizeFailed"
	reasonDeleteFailed    = "VolumeFailedDelete"
)

// item is a claim to look at, or a volume where namespace is empty.
type item struct{ namespace, name string }

func (i item) String() string {
	if i.namespace == "" {
		return "PersistentVolume " + i.name
	}
	return "PersistentVolumeClaim " + i.namespace + "/" + i.name
}

type controller struct {
	node     string
	folders  *folders
	client   kubernetes.Interface
	recorder record.EventRecorder

	factory informers.SharedInformerFactory
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	queue   workqueue.TypedRateLimitingInterface[item]
}

func newController(client kubernetes.Interface, recorder record.EventRecorder, node string, folders *folders) (*controller, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))
	core := factory.Core().V1()
	c := &controller{
		node: node, folders: folders, client: client, recorder: recorder, factory: factory,
		claims:  core.PersistentVolumeClaims().Lister(),
		volumes: core.PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[item](shortestRetry, longestRetry),
			workqueue.TypedRateLimitingQueueConfig[item]{Name: "storage-provisioner"}),
	}
	_, claimsErr := core.PersistentVolumeClaims().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.enqueue,
		UpdateFunc: func(_, now any) { c.enqueue(now) },
	})
	_, volumesErr := core.PersistentVolumes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.enqueue,
		UpdateFunc: func(_, now any) { c.enqueue(now) },
	})
	// A class that arrives after its claims, or is replaced, decides about claims that wait.
	_, classesErr := factory.Storage().V1().StorageClasses().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.enqueueWaiting() },
		UpdateFunc: func(_, _ any) { c.enqueueWaiting() },
	})
	return c, errors.Join(claimsErr, volumesErr, classesErr)
}

// slim drops what is large and never read from cached objects.
func slim(object any) (any, error) {
	if accessor, ok := object.(metav1.Object); ok {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

func (c *controller) enqueue(object any) {
	switch object := object.(type) {
	case *corev1.PersistentVolumeClaim:
		c.queue.Add(item{object.Namespace, object.Name})
	case *corev1.PersistentVolume:
		c.queue.Add(item{"", object.Name})
		// A claim that is to grow may have been seen before its volume.
		if claim := object.Spec.ClaimRef; claim != nil {
			c.queue.Add(item{claim.Namespace, claim.Name})
		}
	}
}

func (c *controller) enqueueWaiting() {
	claims, err := c.claims.List(everything)
	if err != nil {
		return
	}
	for _, claim := range claims {
		if claim.Spec.VolumeName == "" {
			c.enqueue(claim)
		}
	}
}

// run serves until the context ends; what is being done then is finished or given up at a point where it can be resumed.
func (c *controller) run(ctx context.Context) error {
	c.factory.Start(ctx.Done())
	defer c.factory.Shutdown()
	for kind, synced := range c.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("the present state of %s could not be read", kind)
		}
	}
	klog.InfoS("Serving claims", "provisioner", Provisioner, "node", c.node, "root", c.folders.path)

	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	c.sweep(ctx)
	for {
		select {
		case <-sweep.C:
			c.sweep(ctx)
		case <-ctx.Done():
			c.queue.ShutDown()
			working.Wait()
			return nil
		}
	}
}

// next serves one item, and says whether there may be more.
func (c *controller) next(ctx context.Context) bool {
	i, closed := c.queue.Get()
	if closed {
		return false
	}
	defer c.queue.Done(i)
	switch err := c.sync(ctx, i); {
	case err == nil:
		c.queue.Forget(i)
	case ctx.Err() == nil:
		klog.InfoS("To be tried again", "object", i.String(), "cause", err.Error())
		c.queue.AddRateLimited(i)
	}
	return true
}

func (c *controller) sync(ctx context.Context, i item) error {
	if i.namespace == "" {
		return c.syncVolume(ctx, i.name)
	}
	return c.syncClaim(ctx, i.namespace, i.name)
}
