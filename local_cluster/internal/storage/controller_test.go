package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

const (
	exampleUID  = types.UID("0b5ee4ba-6ad2-4b49-8f0e-5d5c1f1e1a11")
	exampleNode = "node-1"
)

func pointer[T any](value T) *T { return &value }

func class(edits ...func(*storagev1.StorageClass)) *storagev1.StorageClass {
	object := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "local"}, Provisioner: Provisioner,
		VolumeBindingMode: pointer(storagev1.VolumeBindingWaitForFirstConsumer), MountOptions: []string{"noatime"},
	}
	for _, edit := range edits {
		edit(object)
	}
	return object
}

// claim is one that the controller manager has handed over, its consumer scheduled.
func claim(edits ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	object := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: exampleUID, Annotations: map[string]string{
			storagehelpers.AnnStorageProvisioner: Provisioner, storagehelpers.AnnSelectedNode: exampleNode,
		}},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: pointer("local"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	}
	for _, edit := range edits {
		edit(object)
	}
	return object
}

func node(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
}

// fixture is a controller over a fake API and a temporary root.
type fixture struct {
	*controller
	t      *testing.T
	ctx    context.Context
	fake   *fake.Clientset
	events *record.FakeRecorder
}

func newFixture(t *testing.T, objects ...runtime.Object) *fixture {
	t.Helper()
	client := fake.NewClientset(append(objects, node(exampleNode))...)
	events := record.NewFakeRecorder(100)
	c, err := newController(client, events, exampleNode, newFolders(t))
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		stop()
		c.factory.Shutdown()
	})
	c.factory.Start(ctx.Done())
	c.factory.WaitForCacheSync(ctx.Done())
	return &fixture{controller: c, t: t, ctx: ctx, fake: client, events: events}
}

// sync serves one item and waits until the cache has what that changed.
func (f *fixture) sync(i item) error {
	f.t.Helper()
	err := f.controller.sync(f.ctx, i)
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		live, _ := f.fake.CoreV1().PersistentVolumes().List(f.ctx, metav1.ListOptions{})
		cached, _ := f.volumes.List(everything)
		if len(live.Items) == len(cached) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

func (f *fixture) syncClaim() error { return f.sync(item{"shop", "data"}) }

func (f *fixture) volume() *corev1.PersistentVolume {
	f.t.Helper()
	volume, err := f.fake.CoreV1().PersistentVolumes().Get(f.ctx, exampleFolder, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	must(f.t, err)
	return volume
}

func (f *fixture) claim() *corev1.PersistentVolumeClaim {
	f.t.Helper()
	claim, err := f.fake.CoreV1().PersistentVolumeClaims("shop").Get(f.ctx, "data", metav1.GetOptions{})
	must(f.t, err)
	return claim
}

func (f *fixture) event() string {
	select {
	case event := <-f.events.Events:
		return event
	default:
		return ""
	}
}

func TestProvisionsWhatAClaimAsksFor(t *testing.T) {
	f := newFixture(t, class(), claim(func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany, corev1.ReadOnlyMany}
	}))
	must(t, f.syncClaim())
	volume := f.volume()
	if volume == nil {
		t.Fatal("no volume")
	}
	spec := volume.Spec
	if spec.Local.Path != f.folders.location(exampleFolder) || !exists(spec.Local.Path) {
		t.Errorf("path %s", spec.Local.Path)
	}
	if spec.ClaimRef.UID != exampleUID || spec.ClaimRef.Namespace != "shop" || spec.ClaimRef.Name != "data" || spec.StorageClassName != "local" {
		t.Errorf("bound to %+v", spec.ClaimRef)
	}
	if size := spec.Capacity[corev1.ResourceStorage]; size.String() != "1Gi" || len(spec.AccessModes) != 2 || spec.MountOptions[0] != "noatime" {
		t.Errorf("%+v", spec)
	}
	if spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || *spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		t.Errorf("%+v", spec)
	}
	expression := spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	if expression.Key != corev1.LabelHostname || expression.Values[0] != exampleNode {
		t.Errorf("%+v", expression)
	}
	if volume.Annotations[storagehelpers.AnnDynamicallyProvisioned] != Provisioner || volume.Finalizers[0] != finalizer || !f.ours(volume) {
		t.Errorf("%+v", volume.ObjectMeta)
	}
	if event := f.event(); !strings.HasPrefix(event, "Normal ProvisioningSucceeded") {
		t.Errorf("event %q", event)
	}
	must(t, f.syncClaim())
	if event := f.event(); event != "" {
		t.Errorf("a second look says %q", event)
	}
}

func TestProvisionsEveryAccessMode(t *testing.T) {
	for _, mode := range []corev1.PersistentVolumeAccessMode{
		corev1.ReadWriteOnce, corev1.ReadWriteOncePod, corev1.ReadOnlyMany, corev1.ReadWriteMany,
	} {
		f := newFixture(t, class(), claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{mode}
		}))
		must(t, f.syncClaim())
		if volume := f.volume(); volume == nil || volume.Spec.AccessModes[0] != mode {
			t.Errorf("%s: %+v", mode, volume)
		}
	}
}

func TestImmediateBindingNeedsNoSelectedNode(t *testing.T) {
	immediate := class(func(c *storagev1.StorageClass) {
		c.VolumeBindingMode = pointer(storagev1.VolumeBindingImmediate)
		c.ReclaimPolicy = pointer(corev1.PersistentVolumeReclaimRetain)
	})
	f := newFixture(t, immediate, claim(func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, storagehelpers.AnnSelectedNode) }))
	must(t, f.syncClaim())
	if volume := f.volume(); volume == nil || volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
		t.Errorf("%+v", volume)
	}
}

func TestWaitsForWhatIsNotOursOrNotYet(t *testing.T) {
	cases := map[string][]runtime.Object{
		"no consumer yet": {class(), claim(func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, storagehelpers.AnnSelectedNode) })},
		"not handed over": {class(), claim(func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, storagehelpers.AnnStorageProvisioner) })},
		"other provisioner": {class(), claim(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[storagehelpers.AnnStorageProvisioner] = "csi.example"
		})},
		"other class": {class(func(c *storagev1.StorageClass) { c.Provisioner = "csi.example" }), claim()},
		"no class":    {claim()},
		"being deleted": {class(), claim(func(c *corev1.PersistentVolumeClaim) {
			c.DeletionTimestamp = pointer(metav1.Now())
			c.Finalizers = []string{"x/y"}
		})},
	}
	for name, objects := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, objects...)
			must(t, f.syncClaim())
			if names, _ := f.folders.list(); f.volume() != nil || f.event() != "" || len(names) > 0 {
				t.Error("something was done about it")
			}
		})
	}
}

func TestRefusesInOneSentenceWhatCannotBeServed(t *testing.T) {
	topology := []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
		{Key: corev1.LabelHostname, Values: []string{"node-2"}},
	}}}
	cases := map[string]struct {
		class   *storagev1.StorageClass
		claim   *corev1.PersistentVolumeClaim
		because string
	}{
		"block":       {class(), claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = pointer(corev1.PersistentVolumeBlock) }), "volumeMode Block"},
		"selector":    {class(), claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} }), "selector"},
		"dataSource":  {class(), claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource = &corev1.TypedLocalObjectReference{} }), "dataSource"},
		"source ref":  {class(), claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSourceRef = &corev1.TypedObjectReference{} }), "dataSource"},
		"attributes":  {class(), claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = pointer("fast") }), "volumeAttributesClassName"},
		"parameters":  {class(func(c *storagev1.StorageClass) { c.Parameters = map[string]string{"type": "ssd"} }), claim(), "parameters (type)"},
		"topologies":  {class(func(c *storagev1.StorageClass) { c.AllowedTopologies = topology }), claim(), "allowedTopologies"},
		"living node": {class(), claim(func(c *corev1.PersistentVolumeClaim) { c.Annotations[storagehelpers.AnnSelectedNode] = "node-2" }), "node node-2 was selected"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, c.class, c.claim, node("node-2"))
			must(t, f.syncClaim()) // no error: it is not tried again and again
			if event := f.event(); !strings.HasPrefix(event, "Warning ProvisioningFailed") || !strings.Contains(event, c.because) {
				t.Errorf("event %q", event)
			}
			if names, _ := f.folders.list(); f.volume() != nil || len(names) > 0 {
				t.Error("a volume was made")
			}
		})
	}
}

func TestANodeThatIsGoneIsSelectedAnew(t *testing.T) {
	f := newFixture(t, class(), claim(func(c *corev1.PersistentVolumeClaim) { c.Annotations[storagehelpers.AnnSelectedNode] = "gone" }))
	must(t, f.syncClaim())
	if selected, ok := f.claim().Annotations[storagehelpers.AnnSelectedNode]; ok || f.volume() != nil {
		t.Errorf("selected: %q, volume: %v", selected, f.volume())
	}
}

func TestAnInterruptedProvisioningIsFinished(t *testing.T) {
	f := newFixture(t, class(), claim())
	refusing := true
	f.fake.PrependReactor("create", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return refusing, nil, errors.New("the server is away")
	})
	if err := f.syncClaim(); err == nil || !strings.Contains(f.event(), "the server is away") {
		t.Errorf("%v", err)
	}
	if !exists(f.folders.location(exampleFolder)) || f.volume() != nil {
		t.Error("not half made")
	}
	refusing = false
	must(t, f.syncClaim())
	if f.volume() == nil {
		t.Error("no volume")
	}
}

func TestAVolumeThatTheCacheDoesNotKnowYetIsNoError(t *testing.T) {
	f := newFixture(t, class(), claim())
	f.fake.PrependReactor("create", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewAlreadyExists(corev1.Resource("persistentvolumes"), exampleFolder)
	})
	must(t, f.syncClaim())
	if event := f.event(); event != "" {
		t.Errorf("event %q", event)
	}
}

func TestAFolderThatCannotBeMadeIsSaid(t *testing.T) {
	f := newFixture(t, class(), claim())
	must(t, os.WriteFile(f.folders.location(exampleFolder), nil, 0o600))
	if err := f.syncClaim(); err == nil || f.volume() != nil {
		t.Errorf("%v", err)
	}
	if event := f.event(); !strings.HasPrefix(event, "Warning ProvisioningFailed") || !strings.Contains(event, exampleFolder) {
		t.Errorf("event %q", event)
	}
}

// bound is a fixture whose claim has its volume, with data in it.
func bound(t *testing.T, edits ...func(*corev1.PersistentVolume)) *fixture {
	t.Helper()
	maker := newFixture(t, class(), claim())
	must(t, maker.syncClaim())
	volume := maker.volume()
	volume.Status.Phase = corev1.VolumeBound
	volume.UID = "6d0e0d0a-6a53-4a35-8ab1-0d9e9f6ad9c1"
	for _, edit := range edits {
		edit(volume)
	}
	objects := []runtime.Object{class(), volume}
	if volume.Status.Phase == corev1.VolumeBound {
		objects = append(objects, claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.VolumeName = volume.Name
			c.Status.Phase = corev1.ClaimBound
			c.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		}))
	}
	f := newFixture(t, objects...)
	f.controller.folders = maker.folders // where the volume is
	must(t, os.WriteFile(filepath.Join(f.folders.location(exampleFolder), "data"), []byte("precious"), 0o600))
	return f
}

func (f *fixture) syncVolume() error { return f.sync(item{"", exampleFolder}) }

func (f *fixture) hasData() bool {
	return exists(filepath.Join(f.folders.location(exampleFolder), "data"))
}

func released(volume *corev1.PersistentVolume) { volume.Status.Phase = corev1.VolumeReleased }

func deleting(volume *corev1.PersistentVolume) { volume.DeletionTimestamp = pointer(metav1.Now()) }

func retained(volume *corev1.PersistentVolume) {
	volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
}

func TestReleaseDeletesFolderAndVolume(t *testing.T) {
	f := bound(t, released)
	must(t, f.syncVolume())
	if exists(f.folders.location(exampleFolder)) {
		t.Error("the folder is there")
	}
	// The fake API deletes at once; the real one waits for the finalizer, which the next test is about.
	if f.volume() != nil {
		t.Error("the volume is there")
	}
	must(t, f.syncVolume())
}

func TestAVolumeDeletedBeforeItsClaimLosesItsFolderToo(t *testing.T) {
	f := bound(t, released, deleting)
	f.fake.PrependReactor("delete", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, nil })
	f.fake.PrependReactor("patch", "persistentvolumes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if patch := string(action.(clienttesting.PatchAction).GetPatch()); !strings.Contains(patch, `"$deleteFromPrimitiveList/finalizers":["`+finalizer+`"]`) {
			t.Errorf("patch %s", patch)
		}
		return false, nil, nil
	})
	must(t, f.syncVolume())
	if exists(f.folders.location(exampleFolder)) {
		t.Error("the folder is there")
	}
	if volume := f.volume(); volume != nil && len(volume.Finalizers) > 0 {
		t.Errorf("held by %v", volume.Finalizers)
	}
}

func TestVolumesThatMustKeepTheirFolder(t *testing.T) {
	cases := map[string][]func(*corev1.PersistentVolume){
		"bound":           {},
		"bound, deleted":  {deleting},
		"pending":         {func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumePending }},
		"no phase yet":    {func(v *corev1.PersistentVolume) { v.Status.Phase = "" }},
		"made available":  {func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeAvailable; v.Spec.ClaimRef = nil }},
		"retained":        {released, retained},
		"done with":       {released, deleting, func(v *corev1.PersistentVolume) { v.Finalizers = []string{"kubernetes.io/pv-protection"} }},
		"of another node": {released, func(v *corev1.PersistentVolume) { v.Annotations[NodeAnnotation] = "node-2" }},
		"of another maker": {released, func(v *corev1.PersistentVolume) {
			v.Annotations[storagehelpers.AnnDynamicallyProvisioned] = "csi.example"
		}},
		"with another path":    {released, func(v *corev1.PersistentVolume) { v.Spec.Local.Path = "/etc" }},
		"of another kind":      {released, func(v *corev1.PersistentVolume) { v.Spec.Local = nil }},
		"with another's claim": {func(v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = "other" }},
	}
	for name, edits := range cases {
		t.Run(name, func(t *testing.T) {
			f := bound(t, edits...)
			must(t, f.syncVolume())
			if !f.hasData() || f.volume() == nil {
				t.Error("it lost its folder, or its object")
			}
		})
	}
}

func TestARetainedVolumeThatIsDeletedLeavesItsFolder(t *testing.T) {
	f := bound(t, released, retained, deleting)
	must(t, f.syncVolume())
	if volume := f.volume(); volume != nil && len(volume.Finalizers) > 0 || !f.hasData() {
		t.Errorf("held by %v, data: %t", volume.Finalizers, f.hasData())
	}
}

func TestReleasedIsNotBelievedWhileTheClaimExists(t *testing.T) {
	f := bound(t)
	volume := f.volume()
	released(volume)
	_, err := f.fake.CoreV1().PersistentVolumes().UpdateStatus(f.ctx, volume, metav1.UpdateOptions{})
	must(t, err)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if cached, _ := f.volumes.Get(exampleFolder); cached.Status.Phase == corev1.VolumeReleased {
			break
		}
	}
	if err := f.syncVolume(); err == nil || !f.hasData() {
		t.Errorf("%v, data: %t", err, f.hasData())
	}
}

func TestAFolderThatCannotBeRemovedKeepsItsVolume(t *testing.T) {
	f := bound(t, released)
	ctx, stop := context.WithCancel(f.ctx)
	stop()
	if err := f.controller.sync(ctx, item{"", exampleFolder}); err == nil {
		t.Error("no error")
	}
	if f.volume() == nil || f.event() != "" {
		t.Error("told to stop: the volume is gone, or an event was sent")
	}
	must(t, f.syncVolume())
	if f.volume() != nil || f.hasData() {
		t.Error("the next run did not finish")
	}
}

func TestAClaimGrows(t *testing.T) {
	f := bound(t)
	grow := f.claim()
	grow.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("3Gi")
	grow.Status.Conditions = []corev1.PersistentVolumeClaimCondition{
		{Type: corev1.PersistentVolumeClaimResizing}, {Type: corev1.PersistentVolumeClaimFileSystemResizePending},
		{Type: "example.org/Own"},
	}
	grow.Status.AllocatedResources = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}
	grow.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{
		corev1.ResourceStorage: corev1.PersistentVolumeClaimNodeResizePending,
	}
	f = newFixture(t, class(), grow, f.volume())
	f.controller.folders = &folders{path: filepath.Dir(f.volume().Spec.Local.Path)}
	must(t, f.syncClaim())
	if size := f.volume().Spec.Capacity[corev1.ResourceStorage]; size.String() != "3Gi" {
		t.Errorf("the volume is %s", size.String())
	}
	status := f.claim().Status
	if size := status.Capacity[corev1.ResourceStorage]; size.String() != "3Gi" {
		t.Errorf("the claim is %s", size.String())
	}
	if len(status.Conditions) != 1 || status.Conditions[0].Type != "example.org/Own" || len(status.AllocatedResourceStatuses) > 0 {
		t.Errorf("%+v", status)
	}
	if event := f.event(); !strings.HasPrefix(event, "Normal VolumeResizeSuccessful") {
		t.Errorf("event %q", event)
	}
}

func TestAnInterruptedGrowthIsFinished(t *testing.T) {
	volume := bound(t, func(v *corev1.PersistentVolume) {
		v.Spec.Capacity[corev1.ResourceStorage] = resource.MustParse("3Gi") // and the claim still says 1Gi
	})
	must(t, volume.syncClaim())
	if size := volume.claim().Status.Capacity[corev1.ResourceStorage]; size.String() != "3Gi" {
		t.Errorf("the claim is %s", size.String())
	}
}

func TestABoundClaimOfTheRightSizeIsLeftAlone(t *testing.T) {
	f := bound(t)
	f.fake.ClearActions()
	must(t, f.syncClaim())
	for _, action := range f.fake.Actions() {
		if verb := action.GetVerb(); verb == "update" || verb == "patch" {
			t.Errorf("%+v", action)
		}
	}
}

func TestSweepRemovesWhatAnInterruptedRunLeft(t *testing.T) {
	f := newFixture(t, class(), claim())
	abandoned := "pvc-11111111-6ad2-4b49-8f0e-5d5c1f1e1a11"
	must(t, f.folders.make(abandoned))
	must(t, f.folders.make(exampleFolder)) // the claim's, whose volume is about to be made
	f.sweep(f.ctx)
	if exists(f.folders.location(abandoned)) || !exists(f.folders.location(exampleFolder)) {
		t.Error("the abandoned folder is there, or the claim's is not")
	}
}

func TestRunServesWhatIsThereAndWhatComes(t *testing.T) {
	f := newFixture(t, claim())
	c, err := newController(f.fake, f.events, exampleNode, f.folders)
	must(t, err)
	done := make(chan error)
	ctx, stop := context.WithCancel(f.ctx)
	go func() { done <- c.run(ctx) }()
	_, err = f.fake.StorageV1().StorageClasses().Create(f.ctx, class(), metav1.CreateOptions{})
	must(t, err)
	for deadline := time.Now().Add(5 * time.Second); f.volume() == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the class's arrival does not help the waiting claim")
		}
	}
	stop()
	must(t, <-done)
}

func TestWaitsUntilItMayRead(t *testing.T) {
	client := fake.NewClientset()
	tries := 0
	client.PrependReactor("list", "persistentvolumes", func(clienttesting.Action) (bool, runtime.Object, error) {
		tries++
		return tries < 3, nil, apierrors.NewForbidden(corev1.Resource("persistentvolumes"), "", errors.New("no rights yet"))
	})
	must(t, awaitServer(context.Background(), client))
	if tries != 3 {
		t.Errorf("%d tries", tries)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	tries = 0
	if err := awaitServer(ctx, client); !errors.Is(err, context.Canceled) {
		t.Errorf("told to end: %v", err)
	}
}
