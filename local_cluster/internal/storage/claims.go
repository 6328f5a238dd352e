package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"
	corev1helpers "k8s.io/kubernetes/pkg/apis/core/v1/helper"
)

var everything = labels.Everything()

func (c *controller) syncClaim(ctx context.Context, namespace, name string) error {
	claim, err := c.claims.PersistentVolumeClaims(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || claim.DeletionTimestamp != nil {
		return err
	}
	if claim.Spec.VolumeName == "" {
		return c.provision(ctx, claim)
	}
	return c.grow(ctx, claim)
}

// wanted says whether a claim is ours to serve now. The controller manager writes the provisioner's name into a claim once
// no volume that is there already suits it and, where binding waits for a consumer, a node has been chosen.
func (c *controller) wanted(claim *corev1.PersistentVolumeClaim) (*storagev1.StorageClass, bool, error) {
	provisioner, ok := claim.Annotations[storagehelpers.AnnStorageProvisioner]
	if !ok {
		provisioner = claim.Annotations[storagehelpers.AnnBetaStorageProvisioner]
	}
	if provisioner != Provisioner {
		return nil, false, nil
	}
	class, err := c.classes.Get(storagehelpers.GetPersistentVolumeClaimClass(claim))
	if apierrors.IsNotFound(err) {
		return nil, false, nil // its arrival brings the claim here again
	}
	if err != nil || class.Provisioner != Provisioner {
		return nil, false, err
	}
	waits := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	return class, !waits || claim.Annotations[storagehelpers.AnnSelectedNode] != "", nil
}

// volumeName is the same at each try, so that a repeated one finds what the one before it made.
func volumeName(claim *corev1.PersistentVolumeClaim) string {
	return "pvc-" + string(claim.UID)
}

// provision makes the folder, then the volume; the controller manager binds the two.
func (c *controller) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	class, ok, err := c.wanted(claim)
	if err != nil || !ok {
		return err
	}
	name := volumeName(claim)
	if _, err := c.volumes.Get(name); err == nil {
		return nil // made, and waiting to be bound
	}
	if selected := claim.Annotations[storagehelpers.AnnSelectedNode]; selected != "" && selected != c.node {
		return c.otherNode(ctx, claim, selected)
	}
	node, err := c.client.CoreV1().Nodes().Get(ctx, c.node, metav1.GetOptions{})
	if err != nil {
		return c.failed(claim, reasonProvisionFailed, fmt.Errorf("node %s cannot be read: %w", c.node, err))
	}
	if refusal := refuse(claim, class, node); refusal != "" {
		c.recorder.Event(claim, corev1.EventTypeWarning, reasonProvisionFailed, refusal)
		return nil // trying again would not change it; an edit of claim or class brings it here again
	}
	if err := c.folders.make(name); err != nil {
		return c.failed(claim, reasonProvisionFailed, err)
	}
	_, err = c.client.CoreV1().PersistentVolumes().Create(ctx, c.volume(claim, class, node), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // made by the try before this one, of which the cache had not heard
	}
	if err != nil {
		return c.failed(claim, reasonProvisionFailed, fmt.Errorf("volume %s cannot be made: %w", name, err))
	}
	klog.InfoS("Provisioned", "claim", klog.KObj(claim), "volume", name)
	c.recorder.Eventf(claim, corev1.EventTypeNormal, reasonProvisioned, "volume %s is a folder of node %s", name, c.node)
	return nil
}

// failed tells the claim's owner about an error and hands it back for another try.
func (c *controller) failed(claim *corev1.PersistentVolumeClaim, reason string, err error) error {
	c.recorder.Event(claim, corev1.EventTypeWarning, reason, err.Error())
	return err
}

// otherNode deals with a claim whose pod the scheduler wants elsewhere. A node that is gone is taken back, so that the
// scheduler chooses again; one that exists may have a provisioner of its own, and it is said that this one is not it.
func (c *controller) otherNode(ctx context.Context, claim *corev1.PersistentVolumeClaim, selected string) error {
	_, err := c.client.CoreV1().Nodes().Get(ctx, selected, metav1.GetOptions{})
	if err == nil {
		c.recorder.Eventf(claim, corev1.EventTypeWarning, reasonProvisionFailed,
			"node %s was selected, and volumes are made on node %s only; allowedTopologies of the StorageClass would keep its pods there", selected, c.node)
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	klog.InfoS("Selected node is gone, to be selected again", "claim", klog.KObj(claim), "node", selected)
	patch := mergePatch(claim.ResourceVersion, map[string]any{"annotations": map[string]any{storagehelpers.AnnSelectedNode: nil}}, nil)
	_, err = c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// refuse says in one sentence why a claim cannot be served, or nothing.
func refuse(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) string {
	switch {
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode != corev1.PersistentVolumeFilesystem:
		return fmt.Sprintf("volumeMode %s is not served: %s makes folders, so volumeMode must be Filesystem", *claim.Spec.VolumeMode, Provisioner)
	case claim.Spec.Selector != nil:
		return "a selector chooses among volumes that are there already, and a volume made for the claim has no labels: remove the selector, or the StorageClass's name"
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return fmt.Sprintf("dataSource is not served: %s makes empty volumes only; restore into the volume from a pod", Provisioner)
	case claim.Spec.VolumeAttributesClassName != nil && *claim.Spec.VolumeAttributesClassName != "":
		return fmt.Sprintf("volumeAttributesClassName is not served: volumes of %s have no attributes", Provisioner)
	case len(class.Parameters) > 0:
		return fmt.Sprintf("StorageClass %s has parameters (%s), and %s knows none", class.Name, strings.Join(slices.Sorted(maps.Keys(class.Parameters)), ", "), Provisioner)
	case node.Labels[corev1.LabelHostname] == "":
		return fmt.Sprintf("node %s has no label %s, by which volumes are tied to it", node.Name, corev1.LabelHostname)
	case len(class.AllowedTopologies) > 0 && !corev1helpers.MatchTopologySelectorTerms(class.AllowedTopologies, node.Labels):
		return fmt.Sprintf("allowedTopologies of StorageClass %s leave out node %s, the only one with volumes", class.Name, node.Name)
	}
	return ""
}

// volume is the object for a claim's folder.
func (c *controller) volume(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) *corev1.PersistentVolume {
	mode := corev1.PersistentVolumeFilesystem
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	name := volumeName(claim)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{storagehelpers.AnnDynamicallyProvisioned: Provisioner, NodeAnnotation: c.node},
			Finalizers:  []string{finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeReclaimPolicy: policy,
			StorageClassName:              class.Name,
			MountOptions:                  class.MountOptions,
			VolumeMode:                    &mode,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: c.folders.location(name)}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node.Labels[corev1.LabelHostname]},
				}},
			}}}},
		},
	}
}

// grow gives a bound claim the size it asks for: first the volume, then the claim's status, so that an interrupted run is
// seen by the next. A folder takes any size, so nothing is to be done on the node.
func (c *controller) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	volume, err := c.volumes.Get(claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return nil // its arrival brings the claim here again
	}
	if err != nil || !c.ours(volume) || claim.Status.Phase != corev1.ClaimBound ||
		volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID {
		return err
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if present := volume.Spec.Capacity[corev1.ResourceStorage]; present.Cmp(size) >= 0 {
		size = present
	} else {
		patch := mergePatch(volume.ResourceVersion, nil, map[string]any{"capacity": map[string]any{"storage": size.String()}})
		if _, err := c.client.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return c.failed(claim, reasonGrowFailed, fmt.Errorf("volume %s cannot grow to %s: %w", volume.Name, size.String(), err))
		}
	}
	updated, changed := grown(claim, size)
	if !changed {
		return nil
	}
	if _, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, updated, metav1.UpdateOptions{}); err != nil {
		return err // the claim changed meanwhile, or the server is away: nothing that its owner could mend
	}
	klog.InfoS("Grown", "claim", klog.KObj(claim), "size", size.String())
	c.recorder.Eventf(claim, corev1.EventTypeNormal, reasonGrown, "volume %s is %s now", volume.Name, size.String())
	return nil
}

// grown is the claim with the status of one that has reached a size, and whether that differs from what it had.
func grown(claim *corev1.PersistentVolumeClaim, size resource.Quantity) (*corev1.PersistentVolumeClaim, bool) {
	updated := claim.DeepCopy()
	status := &updated.Status
	present := status.Capacity[corev1.ResourceStorage]
	if status.Capacity == nil {
		status.Capacity = corev1.ResourceList{}
	}
	changed := present.Cmp(size) < 0
	if changed {
		status.Capacity[corev1.ResourceStorage] = size
	}
	before := len(status.Conditions)
	status.Conditions = slices.DeleteFunc(status.Conditions, func(condition corev1.PersistentVolumeClaimCondition) bool {
		switch condition.Type {
		case corev1.PersistentVolumeClaimResizing, corev1.PersistentVolumeClaimFileSystemResizePending,
			corev1.PersistentVolumeClaimControllerResizeError, corev1.PersistentVolumeClaimNodeResizeError:
			return true
		}
		return false
	})
	changed = changed || len(status.Conditions) != before
	if _, ok := status.AllocatedResourceStatuses[corev1.ResourceStorage]; ok {
		delete(status.AllocatedResourceStatuses, corev1.ResourceStorage)
		delete(status.AllocatedResources, corev1.ResourceStorage)
		changed = true
	}
	return updated, changed
}

// mergePatch changes an object only if it still is the one that was read.
func mergePatch(resourceVersion string, metadata, spec map[string]any) []byte {
	body := map[string]any{"resourceVersion": resourceVersion}
	maps.Copy(body, metadata)
	whole := map[string]any{"metadata": body}
	if spec != nil {
		whole["spec"] = spec
	}
	patch, err := json.Marshal(whole)
	if err != nil {
		panic(err) // maps of strings
	}
	return patch
}
